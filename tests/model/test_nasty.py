"""Files that aim at time and memory are read or refused quickly, in little memory: one child process reads them all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelmend.model.load import load
from modelmend.model.scan import scan
from tests.model.hostile import Net, clean_pt2
from tests.model.nasty import LOADS, NASTY

_SECONDS = 30
"""Of processor time for one file, where a careless reader takes minutes to forever."""
_MEMORY = 2 << 30

_READ = """
import json, resource, signal, sys, time
from modelmend.errors import ModelmendError
from modelmend.model.load import load
from modelmend.model.scan import scan
import torch, torch.export, tests.model.hostile
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[2]),) * 2)
for name, path in json.load(sys.stdin).items():
    signal.setitimer(signal.ITIMER_VIRTUAL, int(sys.argv[1]))
    shape = None if path.endswith("pt2") else (4,)
    try:
        load(path, arch="tests.model.hostile:Net", input_shape=shape)
        end = "loaded"
    except ModelmendError as error:
        end = "refused" if str(error) else "no reason given"
    print(json.dumps([name, end, scan(path).exit_code]), flush=True)
"""


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """File to how loading ended and the exit code of the scan; files after the one that failed are missing."""
    files = {name: str(make(tmp_path_factory.mktemp("nasty"))) for name, make in NASTY.items()}
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{root / 'src'}:{root}", "OMP_NUM_THREADS": "1", "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", _READ, str(_SECONDS), str(_MEMORY)]
    done = subprocess.run(
        command, input=json.dumps(files), text=True, capture_output=True, timeout=300, cwd=root, env=environment,
        check=False,
    )  # fmt: skip
    return {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", NASTY)
def test_time_and_memory_are_bounded(name: str, ends: dict[str, list[Any]]) -> None:
    assert name in ends, "this file, or the one before it, took too long, filled the memory or raised a foreign error"
    assert ends[name][0] == ("loaded" if name in LOADS else "refused")


def test_pipe_is_never_opened(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    for path in (tmp_path / "model.pth", tmp_path / "dir" / "MLmodel", tmp_path / "dir" / "model.pkl"):
        os.mkfifo(path)
    assert scan(tmp_path / "model.pth").exit_code == 3
    assert {issue.kind for issue in scan(tmp_path / "dir").issues} == {"odd file"}


def test_settings_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    clean_pt2(tmp_path / "model.pt2")
    with (tmp_path / "MLmodel").open("wb") as stream:
        stream.write(b"flavors:\n  python_function:\n    code: code\n")
        stream.truncate(64 << 30)
    assert [issue.kind for issue in scan(tmp_path).issues] == ["code reference"]
    assert load(tmp_path).num_classes == Net().fc.out_features
