"""``modelmend scan`` as a user runs it: exit codes and a readable, harmless output."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from tests.model.hostile import Net, clean_pt2

from modelmend.cli.main import main


def _scan(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["scan", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_exit_codes(tmp_path: Path) -> None:
    clean = clean_pt2(tmp_path / "clean.pt2")
    torch.save(Net(), tmp_path / "module.pth")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("text\n")
    (tmp_path / "cut.pt2").write_bytes(clean.read_bytes()[:-30])
    names = ("clean.pt2", "module.pth", "cut.pt2", "nowhere.pt2", "empty", "notes.md")
    assert {name: _scan(tmp_path / name) for name in names} == {
        "clean.pt2": 0, "module.pth": 1, "cut.pt2": 1, "nowhere.pt2": 2, "empty": 3, "notes.md": 3,
    }  # fmt: skip


def test_names_in_a_file_neither_style_nor_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "x[red]\x1b[2J\u202ey".encode()
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04\x8c\x0b[/bold]evil\x8c" + bytes([len(name)]) + name + b"\x93)R.")
    assert _scan(tmp_path / "m.pkl") == 1
    shown = capsys.readouterr().out
    assert "[/bold]evil" in shown
    assert "\\x1b[2J\\u202ey" in "".join(shown.split()).replace("│", "")
    assert not {"\x1b[2J", "\u202e"} & {shown[i : i + n] for i in range(len(shown)) for n in (1, 4)}


def test_report_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    assert _scan(tmp_path / "old.pkl", "--json") == 1
    report = json.loads(capsys.readouterr().out)
    assert [issue["severity"] for issue in report["issues"]] == ["critical"]
    assert "os.system" in report["issues"][0]["what"]


def test_pipe_in_place_of_a_model_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.pth")
    assert _scan(tmp_path / "m.pth") == 3
