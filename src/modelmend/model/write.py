"""Writes a model form as a ``.pt2`` archive: same bytes every time, nothing private, read back before it counts."""

from __future__ import annotations

import copy
import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import GraphModule

from modelmend.errors import ModelUnsupported
from modelmend.model.export import export_program, graph_input_dtype, save_program
from modelmend.model.hashing import content_hash
from modelmend.model.operators import OPERATORS
from modelmend.model.pt2 import MODEL, read_pt2

ROOT = "model"
"""Name of the archive's root folder, whatever the file is called."""
_ALIGNMENT = 64
_SIZES = ("torch.ops.aten.sym_size.int", "torch.ops.aten.sym_numel.default")


def write_pt2(graph: GraphModule, path: str | Path, input_shape: tuple[int, ...]) -> None:
    """Write an archive that stock ``torch.export.load`` reads, with zeros as sample input and no source paths.

    Equal models give equal bytes. The file is written under a temporary name, read back, compared (content hash, and
    outputs on a seeded input) and only then given its name.

    Args:
        graph: The model form, on any device.
        path: The file to write; replaced when it exists.
        input_shape: One sample's shape, without the batch axis.

    Raises:
        ModelUnsupported: The graph does not survive the round: nothing is written.
    """
    path = Path(path)
    clean = copy.deepcopy(graph).cpu()
    for parameter in clean.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    dtype = graph_input_dtype(clean)
    stock = io.BytesIO()
    save_program(export_program(clean, input_shape, dtype), stock)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=".pt2")
    os.close(handle)
    temporary = Path(name)
    try:
        _rewrite(stock, temporary, clean)
        _compare(clean, read_pt2(temporary), input_shape, dtype, path)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def seeded_input(shape: tuple[int, ...], dtype: torch.dtype, batch: int = 3, seed: int = 0) -> torch.Tensor:
    """A batch ``(batch, *shape)`` of noise in 0..1, or of zeros and ones for an integer input."""
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        return torch.rand(batch, *shape, generator=generator).to(dtype)
    return torch.randint(0, 2, (batch, *shape), generator=generator).to(dtype)


def _compare(
    graph: GraphModule, again: GraphModule, input_shape: tuple[int, ...], dtype: torch.dtype, path: Path
) -> None:
    x = seeded_input(input_shape, dtype)
    with torch.no_grad():
        same = torch.allclose(graph(x), again(x), rtol=0, atol=0, equal_nan=True)
    if not same or content_hash(graph) != content_hash(again):
        raise ModelUnsupported(
            "the model is not the same after writing and reading it; nothing was written", where=path,
            fix="report this model's architecture",
        )  # fmt: skip


def _rewrite(stock: io.BytesIO, target: Path, graph: GraphModule) -> None:
    """Copy torch's archive member by member: fixed root, times and identity, no traces of its origin."""
    with zipfile.ZipFile(stock) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
        for info in sorted(source.infolist(), key=lambda i: i.filename):
            name = info.filename.partition("/")[2]
            content = source.read(info)
            if name == MODEL:
                content = _scrubbed(content, graph)
            elif name == ".data/serialization_id":
                content = b"0" * 40
            entry = zipfile.ZipInfo(f"{ROOT}/{name}", (1980, 1, 1, 0, 0, 0))
            entry.extra = _padding(out.fp.tell() if out.fp else 0, entry.filename)
            out.writestr(entry, content)


def _padding(offset: int, name: str) -> bytes:
    """An extra field that lets the content start at a multiple of 64 bytes, as torch does."""
    start = offset + 30 + len(name) + 4
    return b"FB" + (fill := -start % _ALIGNMENT).to_bytes(2, "little") + b"Z" * fill


def _scrubbed(content: bytes, graph: GraphModule) -> bytes:
    program: dict[str, Any] = json.loads(content)
    nodes = program["graph_module"]["graph"]["nodes"]
    for node in nodes:
        node["metadata"] = {}
    counted = [n for n in nodes if n["target"] in OPERATORS and n["target"] not in _SIZES]
    calls = [n for n in graph.graph.nodes if isinstance(n.target, OpOverload) and f"torch.ops.{n.target}" not in _SIZES]
    if [n["target"] for n in counted] == [f"torch.ops.{n.target}" for n in calls]:
        for node, call in zip(counted, calls, strict=True):
            module = call.meta.get("module", "")
            root = "L__self__,,torch.nn.modules.module.Module"
            node["metadata"]["nn_module_stack"] = (
                f"{root};L__self__.{module},{module},torch.nn.modules.module.Module" if module else root
            )
    program["graph_module"]["metadata"] = {}
    return json.dumps(program, separators=(",", ":"), sort_keys=False).encode()
