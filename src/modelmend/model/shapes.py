"""Shapes of every value in a graph, found by running it twice on zeros: with a batch of 2 and a batch of 3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from modelmend.errors import ModelUnsupported
from modelmend.model.export import graph_input_dtype

BATCH = 2
"""Batch size that all recorded shapes stand for."""


@dataclass(frozen=True)
class Spec:
    """Shape and type of one tensor at batch 2.

    Attributes:
        shape: Sizes, batch included.
        dtype: Element type.
        batch: The axis that *is* the batch; None when no axis depends on it, -1 when it is merged with another axis.
        merged: The axis that it is merged into, in that case.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    batch: int | None = None
    merged: int | None = None


@dataclass(frozen=True)
class Count:
    """A whole number that depends on the batch: ``at_two + step * (batch - 2)``."""

    at_two: int
    step: int

    def at(self, batch: int) -> int:
        """Its value at a batch size."""
        return self.at_two + self.step * (batch - BATCH)


Entry = Spec | Count | tuple[Any, ...] | int | float | bool | None
"""What a node holds: one tensor, several, or a number."""


def placeholder(graph: GraphModule) -> Node:
    """The one input node."""
    nodes: list[Node] = list(graph.graph.nodes)
    return next(node for node in nodes if node.op == "placeholder")


def zeros(graph: GraphModule, input_shape: tuple[int, ...], batch: int = BATCH) -> Tensor:
    """A batch of zeros that the graph takes, ``(batch, *input_shape)``, where its parameters are."""
    first = next(graph.parameters(), None)
    device = torch.device("cpu") if first is None else first.device
    return torch.zeros((batch, *input_shape), dtype=graph_input_dtype(graph), device=device)


class _Recorder(Interpreter):
    def __init__(self, graph: GraphModule, record: Callable[[Any], Entry]) -> None:
        super().__init__(graph)
        self.record, self.entries = record, dict[Node, Entry]()

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        self.entries[n] = self.record(result)
        return result


def _record(value: Any) -> Entry:
    if isinstance(value, Tensor):
        return Spec(tuple(value.shape), value.dtype)
    if isinstance(value, list | tuple):
        return tuple(_record(v) for v in value)
    return value if isinstance(value, int | float | bool) else None


def _merge(two: Entry, three: Entry) -> Entry:
    if isinstance(two, tuple) and isinstance(three, tuple):
        return tuple(_merge(a, b) for a, b in zip(two, three, strict=True))
    if type(two) is int and type(three) is int and two != three:
        return Count(two, three - two)
    if not (isinstance(two, Spec) and isinstance(three, Spec)):
        return two
    changed = [d for d, (a, b) in enumerate(zip(two.shape, three.shape, strict=True)) if a != b]
    clean = len(changed) == 1 and two.shape[changed[0]] == BATCH
    if clean or not changed:
        return Spec(two.shape, two.dtype, changed[0] if clean else None)
    return Spec(two.shape, two.dtype, -1, changed[0] if len(changed) == 1 else None)


@torch.no_grad()
def propagate_shapes(graph: GraphModule, input_shape: tuple[int, ...]) -> dict[Node, Entry]:
    """Shape, type and batch axis of every node.

    Args:
        graph: The model form.
        input_shape: Of one sample, without the batch axis.

    Raises:
        ModelUnsupported: the graph does not run on this shape.
    """
    runs = []
    for batch in (BATCH, BATCH + 1):
        recorder = _Recorder(graph, _record)
        try:
            recorder.run(zeros(graph, input_shape, batch))
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            raise ModelUnsupported(
                f"the model does not run on inputs of shape {tuple(input_shape)}: {str(error).splitlines()[0]}",
                field="input_shape",
                fix="give the shape of one sample, without the batch axis",
            ) from error
        runs.append(recorder.entries)
    return {node: _merge(runs[0][node], runs[1][node]) for node in graph.graph.nodes}


def known_shapes(graph: GraphModule, input_shape: tuple[int, ...]) -> list[Entry]:
    """``propagate_shapes`` in graph order, remembered on the module for the next call.

    For callers that never change the graph: what is remembered is dropped when nodes were added, removed or renamed.
    """
    names = tuple(node.name for node in graph.graph.nodes)
    kept = graph.meta.setdefault("modelmend.shapes", {})
    if kept.get(input_shape, ((),))[0] != names:
        kept[input_shape] = (names, list(propagate_shapes(graph, input_shape).values()))
    entries: list[Entry] = kept[input_shape][1]
    return entries
