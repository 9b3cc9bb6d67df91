"""One way in for every model file: ``.pt2``, a state dict with an architecture, an MLflow model directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from modelmend.artifacts import sha256_file
from modelmend.errors import InputError, ModelRefused, ModelUnsupported
from modelmend.model.bounds import output_shape
from modelmend.model.export import export_module, graph_input_dtype
from modelmend.model.lift import Lifter
from modelmend.model.pt2 import read_pt2
from modelmend.model.safetensor import read_safetensors
from modelmend.model.scan import scan
from modelmend.model.source import Source, find
from modelmend.model.statedict import build, described
from modelmend.model.torchfile import read_torch_file

MANY = 256
"""A number of samples as a probe runs them; shapes that are small for two samples need not be small for many."""
MAX_CLASSES = 100_000


@dataclass(frozen=True)
class Loaded:
    """A suspect model, read as data.

    Attributes:
        graph: The model form.
        input_shape: One sample's shape, without the batch axis.
        num_classes: Size of the output's second axis.
        format: ``pt2``, ``safetensors``, ``state_dict`` or ``pickle``; ``mlflow/`` in front for a model directory.
        file_hash: Of the one file that was read, ``sha256:...``.
        findings: What the file holds beyond tensors (`modelmend.model.scan.Issue` as dictionaries).
    """

    graph: GraphModule
    input_shape: tuple[int, ...]
    num_classes: int
    format: str
    file_hash: str
    findings: tuple[dict[str, Any], ...] = ()


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
) -> Loaded:
    """Read a model without running any code that comes with it.

    Args:
        path: A ``.pt2``, ``.safetensors``, ``.pth`` or ``.pt`` file, or an MLflow model directory, of which the model
            file alone is read.
        arch: For a state dict or a pickled module: a built-in name or ``package.module:callable`` of code that you
            trust. The only code that ever runs is this.
        input_shape: One sample's shape; needed where the file does not say it.
        num_classes: Expected number of classes; for a built-in architecture the number to build.

    Returns:
        The model form with what is known about it.

    Raises:
        InputError: No such file, no model, or an argument that is missing or contradicts it.
        ModelRefused: The file holds what data alone does not need.
        ModelUnsupported: A model that cannot be repaired.
    """
    source = find(path)
    file_hash = sha256_file(source.file)
    if source.kind == "pt2":
        graph, kind = read_pt2(source.file), "pt2"
    else:
        tensors, kind = read_tensors(source)
        graph, input_shape = _with_architecture(source.file, tensors, arch, input_shape, num_classes)
    shape = _agreed_shape(graph, source.file, input_shape)
    classes = _classes(graph, shape, source.file)
    if num_classes is not None and num_classes != classes:
        raise InputError(f"the model has {classes} classes, not {num_classes}", where=source.file, field="num_classes")
    return Loaded(
        graph,
        shape,
        classes,
        kind if source.directory is None else f"mlflow/{kind}",
        file_hash,
        tuple(issue.model_dump(mode="json") for issue in scan(path, read=False).issues),
    )


def read_tensors(source: Source) -> tuple[dict[str, Tensor], str]:
    """Named tensors of a file that holds no graph, and its format: ``safetensors``, ``state_dict`` or ``pickle``."""
    if source.kind == "safetensors":
        return read_safetensors(source.file), "safetensors"
    file = read_torch_file(source.file)
    tensors, _ = Lifter(file, source.file, 4 * source.file.stat().st_size + (1 << 20)).state_dict()
    return tensors, "state_dict" if isinstance(file.value, dict) else "pickle"


def _with_architecture(
    file: Path,
    tensors: dict[str, Tensor],
    arch: str | None,
    input_shape: tuple[int, ...] | None,
    num_classes: int | None,
) -> tuple[GraphModule, tuple[int, ...]]:
    if arch is None:
        raise InputError(
            f"the file holds {described(tensors)} but no graph, so it needs an architecture", where=file, field="arch",
            fix="give arch=package.module:callable of code that you trust, or a built-in name such as resnet20",
        )  # fmt: skip
    if input_shape is None:
        raise InputError(
            "a state dict does not say the input's shape", where=file, field="input_shape",
            fix="give the shape of one sample, such as 3,32,32",
        )  # fmt: skip
    shape = tuple(input_shape)
    return export_module(build(arch, tensors, shape, num_classes), shape), shape


def _classes(graph: GraphModule, shape: tuple[int, ...], file: Path) -> int:
    """Number of classes, from the output's shape for three numbers of samples; nothing is computed."""
    dtype = graph_input_dtype(graph)
    try:
        two, three, many = (output_shape(graph, shape, dtype, batch) for batch in (2, 3, MANY))
    except (ModelRefused, ModelUnsupported) as error:
        error.where = error.where or str(file)
        raise
    if len(two) != 2 or two[0] != 2 or three != (3, two[1]) or many != (MANY, two[1]) or two[1] < 2:
        raise ModelUnsupported(
            f"the output for 2, 3 and {MANY} samples has shapes {two}, {three} and {many}; a classifier gives (N, classes)",
            where=file, field="graph", fix="export the part that returns the class scores",
        )  # fmt: skip
    if two[1] > MAX_CLASSES:
        raise ModelUnsupported(f"the model has {two[1]} classes; up to {MAX_CLASSES} are handled", where=file)
    return two[1]


def _agreed_shape(graph: GraphModule, path: Path, told: tuple[int, ...] | None) -> tuple[int, ...]:
    """The shape that the file states and the one that the user states, if they agree."""
    placeholder = next(n for n in graph.graph.nodes if n.op == "placeholder")
    stated: tuple[int | None, ...] = tuple(placeholder.meta.get("shape", ())[1:])
    if told is None:
        if not stated or None in stated:
            raise InputError(
                "the file does not say the input's shape", where=path, field="input_shape",
                fix="give the shape of one sample, such as 3,32,32",
            )  # fmt: skip
        return tuple(n for n in stated if n is not None)
    if stated and (len(stated) != len(told) or any(s not in (None, t) for s, t in zip(stated, told, strict=True))):
        raise InputError(
            f"the model takes samples of shape {stated}, not {tuple(told)}", where=path, field="input_shape",
            fix="leave the shape out, or give it without the batch axis",
        )  # fmt: skip
    return tuple(told)
