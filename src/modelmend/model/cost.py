"""What a model costs: its parameters and the multiply-adds of one sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.fx import GraphModule, Node

from modelmend.model.propagate import arguments, attribute, base_name
from modelmend.model.shapes import BATCH, Entry, Spec, propagate_shapes


@dataclass(frozen=True)
class Cost:
    """Size and work of a model.

    Attributes:
        parameters: Trainable numbers; a shared parameter counts once, buffers do not.
        macs: Multiply-adds of convolutions, linear layers, matrix products and attention, a sample.
    """

    parameters: int
    macs: int

    def compression(self, before: Cost) -> tuple[float, float]:
        """``(1 - parameters / parameters before, 1 - macs / macs before)``, each 0..1 for a smaller model."""
        return 1 - self.parameters / max(before.parameters, 1), 1 - self.macs / max(before.macs, 1)


def count(graph: GraphModule, input_shape: tuple[int, ...]) -> Cost:
    """Count parameters and multiply-adds.

    Args:
        graph: The model form.
        input_shape: Of one sample, without the batch axis.

    Raises:
        ModelUnsupported: the graph does not run on this shape.
    """
    shapes = propagate_shapes(graph, input_shape)
    names = {str(n.target) for n in graph.graph.nodes if n.op == "get_attr"} & {
        name for name, _ in graph.named_parameters()
    }
    total = sum(_macs(node, shapes) for node in graph.graph.nodes if node.op == "call_function")
    return Cost(sum(attribute(graph, name).numel() for name in names), total // BATCH)


def _shape(shapes: dict[Node, Entry], argument: object) -> tuple[int, ...]:
    entry = shapes[argument] if isinstance(argument, Node) else None
    if isinstance(entry, tuple):
        entry = entry[0]
    assert isinstance(entry, Spec)
    return entry.shape


def _macs(node: Node, shapes: dict[Node, Entry]) -> int:
    """Multiply-adds of one node at batch 2."""
    name, given = base_name(node), arguments(node)
    if name.startswith("conv"):
        weight = _shape(shapes, given[1])
        transposed = "transpose" in name or (name == "convolution" and bool(given[6]))
        # Each output element sums over weight[1:] products; transposed, each input element feeds weight[1:].
        return math.prod(_shape(shapes, given[0] if transposed else node)) * math.prod(weight[1:])
    if name == "linear":
        return math.prod(_shape(shapes, node)) * _shape(shapes, given[1])[-1]
    if name in ("mm", "bmm", "matmul"):
        return math.prod(_shape(shapes, node)) * _shape(shapes, given[0])[-1]
    if name in ("addmm", "baddbmm"):
        return math.prod(_shape(shapes, node)) * _shape(shapes, given[1])[-1]
    if name == "scaled_dot_product_attention":
        query, key, value = (_shape(shapes, part) for part in given[:3])
        return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return 0
