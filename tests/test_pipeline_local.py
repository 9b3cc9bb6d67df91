"""The compiled pipeline on the KFP local runner: the demo end to end, and a failing stage told as one error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("kfp")
pytest.importorskip("mlflow")

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_demo_registers_version_2_and_refuses_the_impossible(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "modelmend", "demo", "--dir", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=500,
        env={**os.environ, "COLUMNS": "140"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "registered: digits version 2 with alias 'candidate'" in done.stdout
    assert "nothing was registered" in done.stdout
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/demo/mlflow.db")
    assert {v.version for v in client.search_model_versions("name='digits'")} == {1, 2} or {
        str(v.version) for v in client.search_model_versions("name='digits'")
    } == {"1", "2"}
    run = tmp_path / "demo" / "run"
    for name in ("repaired.pt2", "repaired.safetensors", "decision.json", "scorecard.json", "report.html"):
        assert (run / name).is_file(), name
    assert json.loads((run / "decision.json").read_text())["verdict"] == "pass"


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
