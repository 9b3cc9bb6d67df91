"""Whether a model gives probabilities or scores."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from modelmend.model.export import graph_input_dtype

_SOFTMAX = ("aten.softmax.int", "aten._softmax.default")
_SAME_VALUES = (
    "aten.view.default", "aten.reshape.default", "aten.flatten.using_ints", "aten.squeeze.dim", "aten.clone.default",
    "aten.contiguous.default", "aten.to.dtype", "aten.dropout.default", "aten.alias.default", "aten.detach.default",
)  # fmt: skip


def outputs_probabilities(graph: GraphModule, input_shape: tuple[int, ...]) -> bool:
    """Whether the rows of the output are probabilities: the graph ends in a softmax, or they sum to one on noise.

    Args:
        graph: The model form.
        input_shape: One sample's shape, without the batch axis.
    """
    node = next(n for n in graph.graph.nodes if n.op == "output").args[0]
    while isinstance(node, Node) and str(node.target) in _SAME_VALUES:
        node = node.args[0]
    if isinstance(node, Node) and str(node.target) in _SOFTMAX and node.args[1] in (1, -1):
        return True
    return _rows_sum_to_one(graph, input_shape)


@torch.no_grad()
def _rows_sum_to_one(graph: GraphModule, input_shape: tuple[int, ...]) -> bool:
    generator = torch.Generator().manual_seed(0)
    dtype = graph_input_dtype(graph)
    device = next((p.device for p in graph.parameters()), torch.device("cpu"))
    noise = torch.rand(8, *input_shape, generator=generator)
    x = (noise if dtype.is_floating_point else (noise * 2).floor()).to(device=device, dtype=dtype)
    rows = graph(x).float()
    return bool((rows >= 0).all()) and bool((rows.sum(1) - 1).abs().max() < 1e-2)
