"""Works out what a graph would compute before it computes anything: shapes on torch's ``meta`` device, no memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from modelmend.errors import ModelRefused, ModelUnsupported
from modelmend.model.meter import Meter, flat

MAX_VALUES = 1 << 28
"""Largest number of elements that one operator may produce for one sample."""
MAX_TOTAL = 1 << 31
"""Largest number of elements that all operators together may produce for one sample."""
MAX_WORK = 1 << 40
"""Largest number of multiply-adds for one sample; a ViT-H needs an eighth of it."""
_MAX_SIZE = 1 << 62


class _Shapes(Interpreter):
    """Runs the graph on shapes; parameters and buffers are replaced by their shapes."""

    def __init__(self, graph: GraphModule, batch: int) -> None:
        super().__init__(graph)
        self.meter = Meter(MAX_VALUES * batch, 2 * MAX_TOTAL * batch, MAX_WORK * batch)

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return super().get_attr(target, args, kwargs).to("meta")

    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if isinstance(result, int) and abs(result) > _MAX_SIZE:
            raise ModelRefused("arithmetic on the batch size grows without end", field="graph")
        self.meter.add(n.target, *(t.numel() for t in flat([result]) if isinstance(t, Tensor)))
        if n.meta.get("in_place") and isinstance(result, Tensor):
            self._same_kind(n, result)
        return result

    def _same_kind(self, n: Node, result: Tensor) -> None:
        """An in-place operator keeps shape and type of what it writes; its pure form must give the same."""
        first = n.args[0]
        before = self.env.get(first) if isinstance(first, Node) else None
        if isinstance(before, Tensor) and (before.shape != result.shape or before.dtype != result.dtype):
            raise ModelUnsupported(
                f"an in-place operator changes the element type ({n.target})", field="graph",
                fix="use the operator that returns a new tensor",
            )  # fmt: skip


@torch.no_grad()
def output_shape(
    graph: GraphModule, input_shape: tuple[int, ...], dtype: torch.dtype, batch: int = 2
) -> tuple[int, ...]:
    """Shape of the output for a batch of samples, without running the model.

    Args:
        graph: The model form.
        input_shape: One sample's shape, without the batch axis.
        dtype: Of the input.
        batch: Number of samples.

    Raises:
        ModelRefused: A node would produce more values than allowed.
        ModelUnsupported: The graph does not fit this input.
    """
    shapes = _Shapes(graph, batch)
    try:
        x = torch.empty(batch, *input_shape, dtype=dtype, device="meta")
        with shapes.meter:
            result = shapes.run(x)
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError, AssertionError) as error:
        raise ModelUnsupported(
            f"the model does not run on a batch of {batch} samples of shape {tuple(input_shape)}: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0][:300]}",
            field="input_shape",
            fix="give the shape of one sample, without the batch axis; export with a free batch size",
        ) from error
    if not isinstance(result, Tensor):
        raise ModelUnsupported("the model does not return one tensor", field="graph")
    return tuple(result.shape)
