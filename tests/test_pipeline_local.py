"""The compiled pipeline on the KFP local runner: a failing stage told as one error (the demo: ``test_wheel.py``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("kfp")
pytest.importorskip("mlflow")


@pytest.mark.slow
def test_a_failing_stage_is_one_error_with_its_field(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"not a model")
    np.savez(tmp_path / "s.npz", x=np.zeros((4, 1, 8, 8), np.uint8), y=np.arange(4))
    done = subprocess.run(
        [sys.executable, "-m", "modelmend", "repair", "model.pt2", "--samples", "s.npz", "--run-dir", "run"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2, done.stdout
    assert "error:" in done.stderr and "model.pt2" in done.stderr and "Traceback" not in done.stderr
    assert (tmp_path / "run" / "report.html").is_file()
    assert not (tmp_path / "run" / "decision.json").exists()
