"""One way in for every model file: ``.pt2``, a state dict with an architecture, an MLflow model directory."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from modelmend.artifacts import sha256_file
from modelmend.errors import InputError, ModelUnsupported
from modelmend.model.bounds import output_shape
from modelmend.model.export import graph_input_dtype
from modelmend.model.pt2 import read_pt2


@dataclass(frozen=True)
class Loaded:
    """A suspect model, read as data.

    Attributes:
        graph: The model form.
        input_shape: One sample's shape, without the batch axis.
        num_classes: Size of the output's second axis.
        format: ``pt2``, ``safetensors``, ``state_dict`` or ``pickle``; ``mlflow+`` in front for a model directory.
        file_hash: Of the one file that was read, ``sha256:...``.
        findings: What the file holds beyond tensors, as `modelmend.model.scan.Issue` dictionaries.
    """

    graph: GraphModule
    input_shape: tuple[int, ...]
    num_classes: int
    format: str
    file_hash: str
    findings: tuple[dict[str, Any], ...] = field(default=())


def load(
    path: str | Path,
    *,
    arch: str | None = None,
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
) -> Loaded:
    """Read a model without running any code that comes with it.

    Args:
        path: A ``.pt2``, ``.safetensors``, ``.pth`` or ``.pt`` file, or an MLflow model directory.
        arch: For a state dict: a built-in name or ``package.module:callable`` of code that you trust.
        input_shape: One sample's shape; needed where the file does not say it.
        num_classes: Expected number of classes; for a built-in architecture the number to build.

    Returns:
        The model form with what is known about it.

    Raises:
        InputError: No such file, or an argument that contradicts it.
        ModelRefused: The file holds what data alone does not need.
        ModelUnsupported: A model that cannot be repaired.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("there is no such file", where=path, fix="check the path")
    graph = read_pt2(path)
    return _checked(graph, path, "pt2", input_shape, num_classes)


def _checked(
    graph: GraphModule, path: Path, kind: str, input_shape: tuple[int, ...] | None, num_classes: int | None
) -> Loaded:
    shape = _agreed_shape(graph, path, input_shape)
    dtype = graph_input_dtype(graph)
    shapes = [output_shape(graph, shape, dtype, batch) for batch in (2, 3)]
    if [len(s) for s in shapes] != [2, 2] or [s[0] for s in shapes] != [2, 3] or shapes[0][1] < 2:
        raise ModelUnsupported(
            f"the output for 2 and 3 samples has shapes {shapes[0]} and {shapes[1]}; a classifier gives (N, classes)",
            where=path, field="graph", fix="export the part that returns the class scores",
        )  # fmt: skip
    classes = shapes[0][1]
    if num_classes is not None and num_classes != classes:
        raise InputError(f"the model has {classes} classes, not {num_classes}", where=path, field="num_classes")
    return Loaded(graph, shape, classes, kind, "sha256:" + sha256_file(path).removeprefix("sha256:"))


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
