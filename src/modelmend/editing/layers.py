"""Which layers an edit can touch, read off the graph: weight layers in order, and the batch norm that follows each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

aten = torch.ops.aten
_WEIGHT_LAYERS: dict[Any, str] = {
    aten.conv1d.default: "conv",
    aten.conv2d.default: "conv",
    aten.conv3d.default: "conv",
    aten.convolution.default: "conv",
    aten.linear.default: "linear",
}
_BATCH_NORM = aten.batch_norm.default
_TRAINING, _MOMENTUM = 5, 6  # positions in batch_norm(input, weight, bias, mean, var, training, momentum, eps, cudnn)


@dataclass(frozen=True)
class BatchNorm:
    """Names of one ``aten.batch_norm`` node and its tensors (``None`` where it has none)."""

    node: str
    scale: str | None
    shift: str | None
    mean: str | None
    var: str | None


@dataclass(frozen=True)
class WeightLayer:
    """A convolution or linear layer.

    Attributes:
        node: Name of its node in the graph.
        kind: ``conv`` or ``linear``.
        weight: Name of the weight, output channels first.
        bias: Name of the bias, if any.
        norm: The batch norm that alone reads the layer's output, if any.
        channel_dim: Axis of the output channels in the node's value (1 for convolutions, the last for linear layers).
        last: It gives the model's output: its output channels are the classes.
    """

    node: str
    kind: str
    weight: str
    bias: str | None
    norm: BatchNorm | None
    channel_dim: int
    last: bool


def tensors(graph: GraphModule) -> dict[str, Tensor]:
    """Every parameter and buffer of the graph by name; the tensors themselves, not copies."""
    return {**dict(graph.named_parameters(remove_duplicate=False)), **dict(graph.named_buffers(remove_duplicate=False))}


def snapshot(graph: GraphModule) -> dict[str, Tensor]:
    """Copies of every parameter and buffer by name."""
    return {name: tensor.detach().clone() for name, tensor in tensors(graph).items()}


@torch.no_grad()
def put_back(graph: GraphModule, kept: dict[str, Tensor]) -> None:
    """Write a snapshot back, in place."""
    for name, tensor in tensors(graph).items():
        tensor.copy_(kept[name])


def partway(begin: dict[str, Tensor], end: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """``(1 - share) begin + share end``; what is exactly zero at the end, as in cut groups, is zero all along."""
    return {k: torch.lerp(begin[k], v, share).where(v != 0, v) if v.is_floating_point() else v for k, v in end.items()}


def weight_layers(graph: GraphModule) -> list[WeightLayer]:
    """Weight layers in the order in which they are computed; layers that share a weight are left out."""
    found = [_weight_layer(node) for node in graph.graph.nodes if node.target in _WEIGHT_LAYERS]
    layers = [layer for layer in found if layer is not None]
    names = [layer.weight for layer in layers]
    return [layer for layer in layers if names.count(layer.weight) == 1]


def batch_norms(graph: GraphModule) -> list[BatchNorm]:
    """Batch norms of the graph, in order."""
    return [_batch_norm(node) for node in graph.graph.nodes if node.target is _BATCH_NORM]


def set_batch_norm_training(graph: GraphModule, training: bool, momentum: float | None = None) -> None:
    """Switch the ``training`` argument of every batch norm (and its momentum), in place.

    The exported graph has no ``train()``; with the argument set, a forward pass updates the running statistics
    exactly as ``torch.nn.BatchNorm2d`` does.
    """
    for node in graph.graph.nodes:
        if node.target is _BATCH_NORM:
            args = list(node.args)
            args[_TRAINING] = training
            if momentum is not None:
                args[_MOMENTUM] = momentum
            node.args = tuple(args)
    graph.recompile()


def batch_norm_arguments(graph: GraphModule) -> dict[str, tuple[Any, ...]]:
    """The arguments of every batch norm by node name: what ``restore_batch_norm_arguments`` puts back."""
    return {node.name: tuple(node.args) for node in graph.graph.nodes if node.target is _BATCH_NORM}


def restore_batch_norm_arguments(graph: GraphModule, arguments: dict[str, tuple[Any, ...]]) -> None:
    """Put back what ``batch_norm_arguments`` gave."""
    for node in graph.graph.nodes:
        if node.name in arguments:
            node.args = arguments[node.name]
    graph.recompile()


def _name(argument: Any) -> str | None:
    return str(argument.target) if isinstance(argument, Node) and argument.op == "get_attr" else None


def _argument(node: Node, position: int) -> Any:
    return node.args[position] if len(node.args) > position else None


def _batch_norm(node: Node) -> BatchNorm:
    scale, shift, mean, var = (_name(_argument(node, position)) for position in range(1, 5))
    return BatchNorm(node.name, scale, shift, mean, var)


def _weight_layer(node: Node) -> WeightLayer | None:
    weight = _name(_argument(node, 1))
    if weight is None:
        return None
    kind = _WEIGHT_LAYERS[node.target]
    readers = list(node.users)
    norm = _batch_norm(readers[0]) if len(readers) == 1 and readers[0].target is _BATCH_NORM else None
    return WeightLayer(
        node=node.name,
        kind=kind,
        weight=weight,
        bias=_name(_argument(node, 2)),
        norm=norm,
        channel_dim=1 if kind == "conv" else -1,
        last=_reaches_output_alone(node),
    )


def _reaches_output_alone(node: Node) -> bool:
    """Whether only shape changes and a softmax lie between the node and the output."""
    pointwise = {
        aten.softmax.int, aten.log_softmax.int, aten._softmax.default, aten._log_softmax.default,
        aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten.squeeze.dim,
    }  # fmt: skip
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.op == "output":
            return True
        if node.target not in pointwise:
            return False
    return False
