from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmend.gate.judge import judge
from modelmend.gate.policy import Policy
from modelmend.records import Measured, Registration, SuspectInfo
from modelmend.report import html
from modelmend.report.html import plain, render, write_report
from tests.evidence import digest, evidence, good_card, good_privacy, residual

VOID = {"meta", "br", "img", "circle", "path", "rect", "line"}
HOSTILE = "</style><script>alert(1)</script><img src=http://evil/x onerror=alert(2)>"


class Tags(HTMLParser):
    """Checks that every element is closed, and collects names and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def parse(text: str) -> Tags:
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


def suspect(**changes: Any) -> SuspectInfo:
    info = SuspectInfo(
        source="models:/signs/3",
        format="mlflow",
        content_hash=digest("a"),
        file_hash=digest("e"),
        input_shape=(3, 32, 32),
        num_classes=4,
        dtype="float32",
        parameters=1000,
        findings=({"severity": "warning", "what": "a pickle that was not opened"},),
    )
    return info.model_copy(update=changes)


def everything(**changes: Any) -> dict[str, Any]:
    card = changes.get("scorecard") or good_card()
    policy = changes.pop("policy", Policy())
    facts: dict[str, Any] = {
        "suspect": suspect(),
        "validation": {"given": 10, "kept": 9, "evaluated": 3, "source": "s3://b/x.parquet", "expectations": []},
        "domain": {"outcome": "match", "reason": "same domain", "parts": [], "undecidable": []},
        "evidence": evidence(backdoor=True, success=0.97),
        "pruning": {
            "groups_cut": 1,
            "groups_total": 40,
            "reward": 0.8,
            "rules": [{"name": "clp", "reward": 0.5, "cuts": 3}],
            "cut": [{"index": 7, "layer": "layer1.conv1", "kind": "conv", "channels": 1}],
            "explanation": {"score": 0.7, "cards": [{"group": 7, "why": "silent on clean samples"}]},
        },
        "edit": {"reason": "worst success 0.3 -> 0.0", "layers": {"a.weight": 0.1, "b.weight": 0.0}},
        "scorecard": card,
        "privacy": good_privacy(),
        "decision": judge(policy, card, good_privacy(), samples_hash=digest("c"), seed=0),
        "registration": Registration(status="registered", name="signs", version="4", alias="candidate"),
        "stages": [{"step": "prune_neurons", "seconds": 3.0, "passes": 10.0, "digest": digest("d")}],
    }
    return {**facts, **changes}


def written(tmp_path: Path, **facts: Any) -> str:
    write_report(tmp_path / "report.html", **facts)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def visible(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"<style>.*?</style>", "", text, flags=re.S)))


def first_screen(text: str) -> str:
    return visible(text.split('id="checks"', maxsplit=1)[0])


def test_a_pass_says_so_first_with_its_effect_and_where_it_is(tmp_path):
    text = written(tmp_path, **everything())
    parse(text)
    first = first_screen(text)
    assert "Passed" in first
    assert "Registered as signs version 4, alias candidate" in first
    assert "97 % of the samples before and works on 2 % now" in first
    assert "95.0 %" in first
    assert "0.4 × backdoor" in first


def test_that_nothing_was_cut_is_said_in_words(tmp_path):
    facts = everything()
    nothing = {
        "groups_cut": 0,
        "cut": [],
        "accuracy_drop": 0.0,
        "probe_success_left": [1.0],
        "explanation": {"cards": []},
    }
    seen = visible(written(tmp_path, **facts | {"pruning": facts["pruning"] | nothing}))
    assert "None of the 40 neuron groups was cut" in seen
    assert "left the candidate triggers" not in seen and " Why " not in seen


def test_what_was_not_measured_is_on_the_first_screen(tmp_path):
    facts = everything()
    first = first_screen(written(tmp_path, **facts))
    assert facts["decision"].not_run
    assert all(name in first for name in facts["decision"].not_run)


def test_a_refusal_names_the_check_and_its_number(tmp_path):
    card = good_card(residuals=(residual(hits=300), residual("kept", "additive")))
    facts = everything(scorecard=card, policy=Policy(fallback="none"), registration=Registration(status="refused"))
    first = first_screen(written(tmp_path, **facts))
    assert "Refused" in first
    assert "83.3 %" in first
    assert "Nothing was registered" in first


def test_too_few_samples_is_the_reason_given_first(tmp_path):
    facts = everything(scorecard=good_card(gate_samples=50), policy=Policy(fallback="none"), registration=None)
    assert "too few gate samples (have 50, need 200)" in first_screen(written(tmp_path, **facts))


def test_a_fallback_is_neither_passed_nor_refused(tmp_path):
    card = good_card(residuals=(residual(hits=300), residual("kept", "additive")))
    first = first_screen(written(tmp_path, **everything(scorecard=card, registration=None)))
    assert "Not enough yet" in first


def test_a_failure_names_stage_place_and_what_to_do(tmp_path):
    error = {"stage": "validate_samples", "message": "labels outside 0..42", "where": "x.parquet", "field": "label"}
    text = written(tmp_path, suspect=suspect(), error={**error, "fix": "relabel the rows"})
    first = first_screen(text)
    for words in ("Failed", "validate samples", "labels outside 0..42", "x.parquet", "label", "relabel the rows"):
        assert words in first
    assert "models:/signs/3" in text


def test_nothing_at_all_still_gives_a_report(tmp_path):
    text = written(tmp_path)
    parse(text)
    assert "No verdict" in first_screen(text)


@pytest.mark.parametrize("missing", sorted(set(everything()) - {"stages"}))
def test_any_part_may_be_missing(tmp_path, missing):
    parse(written(tmp_path, **everything(**{missing: None})))


def test_every_check_with_its_number_is_in_the_audit_part(tmp_path):
    facts = everything()
    text = visible(written(tmp_path, **facts))
    for check in facts["decision"].checks:
        assert check.name in text
    for value in (digest("a"), digest("b"), digest("c"), facts["decision"].policy_hash):
        assert value in text
    assert "modelmend verify models:/signs/4" in text


def test_the_report_loads_nothing_and_runs_nothing(tmp_path):
    tags = parse(written(tmp_path, **everything(pictures=[png(tmp_path)])))
    assert not {name for name, _ in tags.seen} & {"script", "link", "iframe", "object", "embed", "form"}
    for name, attributes in tags.seen:
        for attribute in ("src", "href", "srcset", "data"):
            value = attributes.get(attribute)
            assert value is None or value.startswith(("#", "data:image/png;base64,")), (name, value)
        assert not [attribute for attribute in attributes if attribute.startswith("on")]


def test_hostile_text_is_shown_and_not_obeyed(tmp_path):
    facts = everything(
        suspect=suspect(source=HOSTILE, findings=({HOSTILE: HOSTILE},)),
        error={"stage": HOSTILE, "message": HOSTILE},
        edit={"reason": HOSTILE, "layers": {HOSTILE: 0.5}},
        pruning={"cut": [{"layer": HOSTILE}], "explanation": {HOSTILE: HOSTILE}},
    )
    tags = parse(written(tmp_path, **facts))
    assert "script" not in {name for name, _ in tags.seen}
    assert not [a for _, a in tags.seen if "onerror" in a or str(a.get("src", "")).startswith("http")]


def png(tmp_path: Path) -> Path:
    from PIL import Image

    file = tmp_path / "trigger0.png"
    Image.new("RGB", (4, 4), "red").save(file)
    return file


def test_pictures_are_embedded_and_other_files_are_not(tmp_path):
    other = tmp_path / "notes.png"
    other.write_text("<svg onload=alert(1)>")
    text = written(
        tmp_path, evidence=evidence(backdoor=True, success=0.9), pictures=[png(tmp_path), other, tmp_path / "no"]
    )
    assert text.count("data:image/png;base64,") == 1


def test_numbers_that_are_none_are_dashes(tmp_path):
    card = good_card(accuracy_after=Measured(), accuracy_drop=Measured(value=float("nan")))
    text = visible(written(tmp_path, **everything(scorecard=card)))
    assert "nan" not in text.lower().replace("finance", "")
    assert "None" not in text


def test_a_failed_rendering_leaves_the_old_report(tmp_path, monkeypatch):
    written(tmp_path)
    before = (tmp_path / "report.html").read_text()
    monkeypatch.setattr(html.os, "fdopen", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        written(tmp_path, **everything())
    assert (tmp_path / "report.html").read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def drop_some(value: Any, rolls: Any) -> Any:
    if isinstance(value, dict):
        return {key: drop_some(item, rolls) for key, item in value.items() if next(rolls) > 0.15}
    if isinstance(value, list):
        return [drop_some(item, rolls) for item in value if next(rolls) > 0.15]
    return value if next(rolls) > 0.1 else None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_holes_anywhere_never_stop_the_report(seed):
    facts = {name: plain(value) for name, value in everything().items()}
    stages = facts.pop("stages")
    rolls = iter(random.Random(seed).random, None)
    parse(render({name: drop_some(value, rolls) for name, value in facts.items()}, stages=stages, pictures=[]))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        (True, "–"),
        ("x", "–"),
        (0.5, "0.5"),
        (1234567, "1\u202f234\u202f567"),
        (0.012345, "0.0123"),
        (2.0, "2"),
    ],
)
def test_numbers_read_well(value, shown):
    assert html.number(value) == shown


def test_a_pass_says_that_a_probe_which_found_nothing_can_miss_a_backdoor(tmp_path):
    card = good_card(probe_before=evidence(backdoor=False, success=0.26))
    first = first_screen(written(tmp_path, **everything(scorecard=card)))
    assert "The probe found no backdoor in this model (probability 26.0 %), and it can miss one" in first
    assert "can miss one" not in first_screen(written(tmp_path, **everything()))


def test_a_probe_in_doubt_is_no_probe_that_found_nothing(tmp_path):
    doubt = evidence(backdoor=False, success=0.47)
    text = written(tmp_path, **everything(scorecard=good_card(probe_before=doubt), evidence=doubt))
    assert "The probe is <b>in doubt</b>" in text
    assert "can miss one" not in first_screen(text)
