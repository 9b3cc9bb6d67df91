"""A stage tells how it started, moved and ended, in this process and through a file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modelmend.cli.view import StageView
from modelmend.errors import SamplesError
from modelmend.events import EVENTS_VARIABLE, listening, stage


def test_events_reach_listener_and_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVENTS_VARIABLE, str(tmp_path / "events"))
    heard: list[dict[str, Any]] = []
    with listening(heard.append), stage("probe_backdoor") as progress:
        progress("class 3", 1, 1)
    written = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert written == heard
    assert [event["event"] for event in heard] == ["start", "progress", "end"]


def test_a_warning_is_shown_at_once() -> None:
    out = io.StringIO()
    with StageView(Console(file=out, width=200)) as view, listening(view.show), stage("validate_samples") as running:
        running.warn("the samples [bold] do not fit")
        assert "warning: the samples [bold] do not fit" in out.getvalue()


def test_an_error_keeps_its_fields_and_still_raises() -> None:
    heard: list[dict[str, Any]] = []
    with pytest.raises(SamplesError), listening(heard.append), stage("validate_samples"):
        raise SamplesError("row 3 is unreadable", where="a.parquet", field="image", fix="remove it")
    assert heard[-1] == {
        "event": "error",
        "stage": "validate_samples",
        "kind": "SamplesError",
        "message": "row 3 is unreadable",
        "where": "a.parquet",
        "field": "image",
        "fix": "remove it",
    }


def test_an_unwritable_event_file_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVENTS_VARIABLE, "/nonexistent/events")
    with stage("import_model") as progress:
        progress("x", 1, 1)
