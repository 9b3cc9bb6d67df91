from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelmend.errors import ModelmendError
from modelmend.model.load import load
from modelmend.model.scan import scan
from tests.model.hostile import HOSTILE

_RUN_STOCK = """
import json, os, pickle, sys, warnings, logging
warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)
import torch, mlflow.pytorch, tests.model.hostile
clean, lines = json.load(sys.stdin)
torch.export.load(clean).module()(torch.zeros(2, 4))
for line in lines:
    if (pid := os.fork()) == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            exec(line)
        except BaseException:
            pass
        os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Attack to (the file, its marker, which does not exist yet)."""
    made = {}
    for name, attack in HOSTILE.items():
        folder = tmp_path_factory.mktemp("hostile")
        made[name] = attack.make(folder, str(folder / "MARK")), folder / "MARK"
    return made


@pytest.mark.parametrize("name", HOSTILE)
def test_reading_and_scanning_runs_nothing(name: str, files: dict[str, tuple[Path, Path]]) -> None:
    path, marker = files[name]
    try:
        loaded = load(path, arch="tests.model.hostile:Net", input_shape=(4,))
    except ModelmendError as error:
        assert error.message
    else:
        assert loaded.findings
    report = scan(path)
    assert not marker.exists()
    assert report.exit_code == 1
    assert report.issues[0].severity in ("critical", "high")


def test_every_attack_works_on_the_stock_loader(files: dict[str, tuple[Path, Path]], clean: Path) -> None:
    lines = [HOSTILE[name].stock.format(path=str(path)) for name, (path, _) in files.items()]
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    given = json.dumps([str(clean), lines])
    command = [sys.executable, "-c", _RUN_STOCK]
    subprocess.run(command, input=given, text=True, check=True, timeout=300, cwd=root, env=environment)
    assert [name for name, (_, marker) in files.items() if not marker.exists()] == []
