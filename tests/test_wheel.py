"""The built wheel runs the demo from an empty directory: nothing is taken from the source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = [pytest.mark.wheel, pytest.mark.slow]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_wheel_holds_the_package_and_its_data_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"modelmend"} | {t for t in tops if t.endswith(".dist-info")}
    assert "modelmend/data/pipelines/repair.yaml" in names
    assert "modelmend/gate/policies/default.yaml" in names


def test_demo_runs_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """A clean environment with the wheel; its dependencies are lent from the running one, to spare the download."""
    home = tmp_path / "env"
    venv.create(home, with_pip=True, symlinks=True)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    lent = tmp_path / "lent"
    lent.mkdir()
    for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if "modelmend" not in entry.name and not (site / entry.name).exists():
            (lent / entry.name).symlink_to(entry)
    (site / "lent.pth").write_text(f"{lent}\n")
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"COLUMNS": "140"}
    done = subprocess.run(
        [home / "bin" / "modelmend", "demo", "--dir", "here"],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "registered: digits version 2 with alias 'candidate'" in done.stdout
    assert "nothing was registered" in done.stdout
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{empty}/here/mlflow.db")
    assert {str(version.version) for version in client.search_model_versions("name='digits'")} == {"1", "2"}
    run = empty / "here" / "run"
    for name in ("repaired.pt2", "repaired.safetensors", "decision.json", "scorecard.json", "report.html"):
        assert (run / name).is_file(), name
    assert json.loads((run / "decision.json").read_text())["verdict"] == "pass"
    where = subprocess.run(
        [python, "-c", "import modelmend; print(modelmend.__file__)"],
        cwd=empty,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(home) in where.stdout
