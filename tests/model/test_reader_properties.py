"""Mutated files never run code, never hang, never grow, and always end in our error or in a model that is whole."""

from __future__ import annotations

import copy
import io
import json
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelmend.errors import ModelmendError
from modelmend.model.hashing import content_hash
from modelmend.model.load import load
from modelmend.model.pickles import read_pickle
from modelmend.model.pt2 import read_pt2
from modelmend.model.scan import scan
from tests.model.hostile import Net, clean_pt2

FORBIDDEN = {"os.system", "subprocess.Popen", "os.exec", "os.fork", "pickle.find_class", "socket.connect"}
_watched: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event in FORBIDDEN:
        _watched.append(f"{event} {arguments}")


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Record every event that a reader of data has no reason to raise; forbid the stock loaders and sympy."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a stock loader was called")

    import sympy
    import sympy.parsing.sympy_parser

    for module, name in (
        (torch, "load"),
        (torch.export, "load"),
        (torch.jit, "load"),
        (pickle, "load"),
        (pickle, "loads"),
    ):
        monkeypatch.setattr(module, name, forbidden)
    monkeypatch.setattr(sympy, "sympify", forbidden)
    monkeypatch.setattr(sympy.parsing.sympy_parser, "parse_expr", forbidden)
    global _watched
    if not getattr(sys, "_modelmend_audit", False):
        sys.addaudithook(_audit)
        sys._modelmend_audit = True  # type: ignore[attr-defined]
    _watched = []
    yield
    seen, _watched = _watched, None
    assert seen == []


def _bytes(name: str) -> bytes:
    buffer = io.BytesIO()
    if name == "pt2":
        with tempfile.TemporaryDirectory() as folder:
            return clean_pt2(Path(folder) / "c.pt2").read_bytes()
    if name == "safetensors":
        from safetensors.torch import save

        return save(Net().state_dict())
    if name == "bare":
        return pickle.dumps(Net())
    torch.save(Net() if "module" in name else Net().state_dict(), buffer, _use_new_zipfile_serialization="zip" in name)
    return buffer.getvalue()


FILES = {name: _bytes(name) for name in ("pt2", "zip state dict", "zip module", "legacy module", "bare", "safetensors")}


def _read(content: bytes) -> None:
    """Load and scan; whatever loads must be a model whose hash can be taken."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        path.write_bytes(content)
        scan(path)
        try:
            loaded = load(path, arch="tests.model.hostile:Net", input_shape=(4,))
        except ModelmendError as error:
            assert error.message
        else:
            assert loaded.num_classes >= 2
            assert content_hash(loaded.graph).startswith("sha256:")


_settings = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_settings
@given(st.sampled_from(sorted(FILES)), st.data())
def test_changed_bytes(name: str, data: st.DataObject) -> None:
    content = bytearray(FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "repeat", "end"]))
        some = data.draw(st.binary(min_size=1, max_size=8))
        if kind == "set":
            content[at : at + len(some)] = some
        elif kind == "cut":
            del content[at : at + len(some)]
        elif kind == "insert":
            content[at:at] = some
        elif kind == "repeat":
            content[at:at] = content[at : at + 64]
        else:
            del content[max(at, 1) :]
    _read(bytes(content))


def _program() -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(FILES["pt2"])) as archive:
        name = next(n for n in archive.namelist() if n.endswith("models/model.json"))
        found: dict[str, Any] = json.loads(archive.read(name))
        return found


PROGRAM = _program()
_NASTY = [
    None, True, -1, 0, 2**31, 2**63, 2**64, 10**400, 1.5, float("inf"), "", "x", "fc.weight", "__class__", "../x",
    "torch.ops.aten.relu.default", "torch.ops.aten.add_.Tensor", "__import__('os').system('true')", [], {}, [[]],
    {"as_int": 3}, {"as_tensor": {"name": "x"}}, {"as_sym_int": {"as_name": "mul"}}, {"as_ints": [10**9] * 4},
    {"as_string": "x"}, {"as_none": True}, {"as_tensors": [{"name": "linear"}] * 3}, {"as_graph": {}},
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from _places(item, (*path, key))


PLACES = [p for p in _places(PROGRAM["graph_module"]) if "metadata" not in p and "module_call_graph" not in p]


def _with_program(program: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(FILES["pt2"])) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            new.writestr(info.filename, json.dumps(program) if info.filename.endswith("models/model.json") else content)
    return buffer.getvalue()


@_settings
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(range(len(_NASTY) + 2))), min_size=1, max_size=3))
def test_changed_graph(changes: list[tuple[tuple[Any, ...], int]]) -> None:
    program = copy.deepcopy(PROGRAM)
    for path, choice in changes:
        item = program["graph_module"]
        try:
            for key in path[:-1]:
                item = item[key]
            if choice == len(_NASTY):
                del item[path[-1]]
            elif choice == len(_NASTY) + 1:
                item[path[-1]] = [item[path[-1]], item[path[-1]]]
            else:
                item[path[-1]] = copy.deepcopy(_NASTY[choice])
        except (KeyError, IndexError, TypeError):
            continue
    _read(_with_program(program))


_OPCODES = [bytes([code]) for code in range(256)]


@settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.one_of(st.sampled_from(_OPCODES), st.binary(max_size=5)), max_size=40))
def test_any_opcodes(parts: list[bytes]) -> None:
    try:
        read_pickle(io.BytesIO(b"\x80\x04" + b"".join(parts) + b"."), "x")
    except ModelmendError as error:
        assert error.message


def test_unchanged_files_load() -> None:
    """The mutations start from files that are fine."""
    for content in FILES.values():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "m").write_bytes(content)
            assert load(Path(folder) / "m", arch="tests.model.hostile:Net", input_shape=(4,)).num_classes == 3


def test_memory_is_bounded_by_the_file(tmp_path: Path) -> None:
    """A file of a few kilobytes that names one record 40,000 times may not grow to gigabytes."""
    entry = {"path_name": "weight_0", "is_param": True, "use_pickle": False}
    meta = {"dtype": 7, "sizes": [{"as_int": 3}, {"as_int": 4}], "strides": [{"as_int": 4}, {"as_int": 1}]}
    entry["tensor_meta"] = {**meta, "requires_grad": False, "storage_offset": {"as_int": 0}, "layout": 7}
    with zipfile.ZipFile(io.BytesIO(FILES["pt2"])) as old, zipfile.ZipFile(tmp_path / "m.pt2", "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("weights/weight_0"):
                content = bytes(4 << 20)
            if info.filename.endswith("model_weights_config.json"):
                big = copy.deepcopy(entry)
                big["tensor_meta"]["sizes"] = [{"as_int": 1 << 20}]
                big["tensor_meta"]["strides"] = [{"as_int": 1}]
                content = json.dumps({"config": {f"p{i}": big for i in range(4000)}}).encode()
            new.writestr(info.filename, content)
    with pytest.raises(ModelmendError, match="larger than the file"):
        read_pt2(tmp_path / "m.pt2")
