"""Every component folder is complete and its body is one call of modelmend.steps."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(p.parent for p in ROOT.glob("components/*/component.py"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_folder_is_complete(folder: Path) -> None:
    for name in ("component.py", "component.yaml", "README.md", "metadata.yaml", "__init__.py"):
        assert (folder / name).is_file(), name
    meta = yaml.safe_load((folder / "metadata.yaml").read_text(encoding="utf-8"))
    assert meta["name"] == folder.name
    assert {"stability", "dependencies", "tags", "lastVerified"} <= set(meta)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_body_only_calls_steps(folder: Path) -> None:
    tree = ast.parse((folder / "component.py").read_text(encoding="utf-8"))
    (function,) = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    body = function.body[1:]
    assert isinstance(body[0], ast.ImportFrom) and body[0].module == "modelmend"
    assert len(body) <= 3
    assert ast.get_docstring(function)
