"""From a module whose code is trusted to the model form."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import IO

import torch
from torch import nn
from torch.fx import GraphModule

from modelmend.errors import ModelUnsupported
from modelmend.model.pt2 import read_pt2

MAX_BATCH = 1 << 20
_DATA_DEPENDENT = ("data-dependent", "data dependent", "dynamic control flow")


def export_module(module: nn.Module, input_shape: tuple[int, ...], *, dtype: torch.dtype | None = None) -> GraphModule:
    """Export a module and read the export back as data, so that there is one way into the model form.

    The module's own code runs: never call this on a module that came out of a file.

    Args:
        module: The classifier; put into eval mode while it is exported.
        input_shape: One sample's shape, without the batch axis.
        dtype: Of the input; by default that of the first floating parameter, or int64 when an embedding reads it.

    Returns:
        The model form, any batch size.

    Raises:
        ModelUnsupported: The module does not export, or not with a free batch size.
    """
    training = module.training
    try:
        program = export_program(module.eval(), input_shape, dtype or _input_dtype(module))
    finally:
        module.train(training)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        save_program(program, path)
        return read_pt2(path)


def save_program(program: torch.export.ExportedProgram, where: str | Path | IO[bytes]) -> None:
    """``torch.export.save`` without its warning about tensors that share storage, which is of use to no reader."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor found in the group")
        torch.export.save(program, where)


def export_program(module: nn.Module, input_shape: tuple[int, ...], dtype: torch.dtype) -> torch.export.ExportedProgram:
    """Torch's own export with zeros at batch 2 and a free batch size; raises ``ModelUnsupported``."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    zeros = torch.zeros(2, *input_shape, dtype=dtype, device=device)
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        with torch.no_grad():
            return torch.export.export(module, (zeros,), dynamic_shapes=({0: batch},))
    except Exception as error:
        if any(words in str(error).lower() for words in _DATA_DEPENDENT):
            raise ModelUnsupported(
                "the model's path depends on its data, so it has no one fixed graph",
                field="architecture",
                fix="export the part that classifies, without branches on values",
            ) from error
        raise ModelUnsupported(
            f"the module cannot be exported with a free batch size: {type(error).__name__}: {str(error)[:300]}",
            field="architecture",
            fix="remove branches on values and fixed batch sizes from forward()",
        ) from error


def graph_input_dtype(graph: GraphModule) -> torch.dtype:
    """Element type of the model form's input: as read from the file, else from what reads it first."""
    placeholder = next(n for n in graph.graph.nodes if n.op == "placeholder")
    known = placeholder.meta.get("dtype")
    if isinstance(known, torch.dtype):
        return known
    if any(str(user.target) == "aten.embedding.default" for user in placeholder.users):
        return torch.int64
    return next((p.dtype for p in graph.parameters() if p.is_floating_point()), torch.float32)


def _input_dtype(module: nn.Module) -> torch.dtype:
    if isinstance(module, GraphModule):
        return graph_input_dtype(module)
    first = next((m for m in module.modules() if next(m.parameters(recurse=False), None) is not None), None)
    if isinstance(first, (nn.Embedding, nn.EmbeddingBag)):
        return torch.int64
    return next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
