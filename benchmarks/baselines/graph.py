"""Reading and switching the model form: batch norms, the convolutions before them, functional evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from modelmend.model.classifier import Classifier

_BATCH_NORM = torch.ops.aten.batch_norm.default
_CONVOLUTIONS = {torch.ops.aten.conv2d.default, torch.ops.aten.convolution.default}


@dataclass(frozen=True)
class Norm:
    """A batch norm with its tensors' names, and the weight of the convolution that feeds it (if one does)."""

    node: Node
    weight: str
    bias: str
    mean: str
    var: str
    epsilon: float
    convolution: str | None


def norms(graph: GraphModule) -> list[Norm]:
    """All affine batch norms in order."""
    found = []
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target is not _BATCH_NORM or node.args[1] is None:
            continue
        source, weight, bias, mean, var = node.args[:5]
        convolution = source.args[1].target if source.target in _CONVOLUTIONS else None
        found.append(Norm(node, weight.target, bias.target, mean.target, var.target, node.args[7], convolution))
    return found


def tensor(graph: GraphModule, name: str) -> Tensor:
    """The parameter or buffer of a dotted name."""
    owner, _, leaf = name.rpartition(".")
    value: Tensor = getattr(graph.get_submodule(owner), leaf)
    return value


def trainable(classifier: Classifier) -> Classifier:
    """A copy whose floating parameters take gradients."""
    copy = classifier.clone()
    for parameter in copy.graph.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return copy


def parameters(classifier: Classifier) -> list[nn.Parameter]:
    """The parameters that take gradients."""
    return [p for p in classifier.graph.parameters() if p.requires_grad]


def accuracy(classifier: Classifier, x: Tensor, y: Tensor) -> float:
    """Top-1 accuracy, 0..1."""
    return float((classifier.predict(x) == y).float().mean())
