"""How each output channel of the last weight layers responds: to clean samples, and to what probe triggers add."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from modelmend.editing.graphrun import read_values
from modelmend.editing.layers import WeightLayer
from modelmend.model.classifier import Classifier

aten = torch.ops.aten
_ACTIVATIONS = {
    aten.relu.default, aten.relu_.default, aten.gelu.default, aten.silu.default, aten.silu_.default,
    aten.hardswish.default, aten.hardswish_.default, aten.hardtanh.default, aten.hardtanh_.default,
    aten.leaky_relu.default, aten.leaky_relu_.default, aten.elu.default, aten.sigmoid.default, aten.tanh.default,
}  # fmt: skip


@dataclass(frozen=True)
class Response:
    """Mean responses of one weight layer, averaged over samples and space.

    Attributes:
        clean: Of each output channel to clean samples, ``(O,)``.
        contrast: Triggered minus clean of each output channel, ``(O,)``.
        input_contrast: The same of each input channel, ``(I,)``.
    """

    clean: Tensor
    contrast: Tensor
    input_contrast: Tensor


def responses(
    classifier: Classifier,
    layers: Sequence[WeightLayer],
    clean: Tensor,
    triggered: Sequence[tuple[float, Tensor]],
    batch_size: int = 128,
) -> dict[str, Response]:
    """Measure the layers' responses.

    The response of a channel is read where the rest of the network reads it: after the layer's batch norm and
    activation where those are its only readers, so that the sign means *more* of what is passed on.

    Args:
        classifier: The model.
        layers: Layers to read.
        clean: Clean samples ``(N, ...)`` in 0..1.
        triggered: Weight and triggered samples ``(N, ...)`` of each candidate trigger; contrasts are averaged with
            these weights (ours: the trigger's success, so that a trigger that does nothing edits nothing).
        batch_size: Samples a batch.

    Returns:
        Weight name -> response.
    """
    base_out, base_in = _means(classifier, layers, clean, batch_size)
    contrast_out = {name: torch.zeros_like(value) for name, value in base_out.items()}
    contrast_in = {name: torch.zeros_like(value) for name, value in base_in.items()}
    total = sum(weight for weight, _ in triggered) or 1.0
    for weight, x in triggered:
        out, into = _means(classifier, layers, x, batch_size)
        for name in base_out:
            contrast_out[name] += weight / total * (out[name] - base_out[name])
            contrast_in[name] += weight / total * (into[name] - base_in[name])
    return {name: Response(base_out[name], contrast_out[name], contrast_in[name]) for name in base_out}


def _means(
    classifier: Classifier, layers: Sequence[WeightLayer], x: Tensor, batch_size: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    nodes = {node.name: node for node in classifier.graph.graph.nodes}
    out: dict[str, Tensor] = {}
    into: dict[str, Tensor] = {}
    hooks: dict[str, list[Callable[[Tensor], None]]] = {}
    for layer in layers:
        node = nodes[layer.node]
        source = node.args[0]
        assert isinstance(source, Node)
        hooks.setdefault(_passed_on(node).name, []).append(_adder(out, layer.weight, layer.channel_dim))
        hooks.setdefault(source.name, []).append(_adder(into, layer.weight, layer.channel_dim))
    read_values(classifier, x, {name: _all(functions) for name, functions in hooks.items()}, batch_size)
    return {n: s / len(x) for n, s in out.items()}, {n: s / len(x) for n, s in into.items()}


def _passed_on(node: Node) -> Node:
    """The value that the rest of the network reads: past the layer's own batch norm and activation."""
    for allowed in ({aten.batch_norm.default}, _ACTIVATIONS):
        readers = list(node.users)
        if len(readers) == 1 and readers[0].target in allowed:
            node = readers[0]
    return node


def _adder(sums: dict[str, Tensor], name: str, dim: int) -> Callable[[Tensor], None]:
    def add(value: Tensor) -> None:
        per_sample = value.detach().double().movedim(dim, 1).flatten(2).mean(2) if value.dim() > 2 else value.double()
        sums[name] = sums.get(name, 0) + per_sample.sum(0).cpu()

    return add


def _all(functions: list[Callable[[Tensor], None]]) -> Callable[[Tensor], None]:
    def call(value: Tensor) -> None:
        for function in functions:
            function(value)

    return call
