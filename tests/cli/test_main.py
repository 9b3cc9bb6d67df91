"""The command line: cheap help, one message and exit code 2 for bad input."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from modelmend.cli.main import main


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    told = capsys.readouterr()
    return int(stop.value.code or 0), told.out + told.err


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, modelmend.cli.main as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'mlflow', 'kfp', 'great_expectations', 'torch_geometric', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "repair" in done.stdout and "demo" in done.stdout
    assert time.monotonic() - started < 20  # a loose bound: machines are shared


def test_missing_model_is_one_message_and_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(
        "repair",
        str(tmp_path / "no.pt2"),
        "--samples",
        str(tmp_path),
        "--run-dir",
        str(tmp_path / "run"),
        "--runner",
        "in-process",
        capsys=capsys,
    )
    assert code == 2
    assert "no such file" in text and "no.pt2" in text and "Traceback" not in text


def test_unknown_option_in_the_configuration_names_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("measure_sample: x\n")
    code, text = run("repair", "m.pt2", "--samples", "s", "--config", str(tmp_path / "c.yaml"), capsys=capsys)
    assert code == 2
    assert "measure_samples" in text


def test_numbers_that_are_none(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run("repair", "m.pt2", "--samples", "s", "--mean", "a,b", capsys=capsys)
    assert code == 2
    assert "mean" in text


def test_unknown_command_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run("repaire", capsys=capsys)
    assert code == 2


def test_no_command_shows_the_help_and_no_empty_error(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run(capsys=capsys)
    assert code == 2
    assert "repair" in text and "error:" not in text


@pytest.mark.parametrize(
    ("raised", "code", "told"), [(KeyboardInterrupt(), 130, "stopped"), (KeyError("k"), 2, "DEBUG")]
)
def test_an_interrupt_and_an_unexpected_error_say_what_to_do(
    raised: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> int:
        raise raised

    monkeypatch.setattr("modelmend.cli.repair.repair_command", broken)
    ended, text = run("repair", "m.pt2", "--samples", "s", capsys=capsys)
    assert ended == code
    assert told in text and "Traceback" not in text


def test_gate_needs_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run("gate", str(tmp_path), capsys=capsys)
    assert code == 2
    assert "not a run directory" in text


def test_paths_with_python3_are_refused_before_kfp_corrupts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.pt2").write_bytes(b"x")
    (tmp_path / "s.npz").write_bytes(b"x")
    code, text = run(
        "repair",
        str(tmp_path / "m.pt2"),
        "--samples",
        str(tmp_path / "s.npz"),
        "--run-dir",
        str(tmp_path / "python3run"),
        capsys=capsys,
    )
    assert code == 2
    assert "python3" in text
