"""A look at, and a hand on, the features that the last linear layer reads."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, fx

from modelmend.errors import ModelUnsupported
from modelmend.model.classifier import Classifier


class Tap:
    """A classifier whose last features can be read and replaced.

    Args:
        classifier: Copied; not changed.

    Raises:
        ModelUnsupported: The model has no linear layer.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._change: Callable[[Tensor], Tensor] | None = None
        self._seen: Tensor | None = None
        graph = copy.deepcopy(classifier.graph)
        node = last_linear(graph)
        source = node.args[0] if node.target is not torch.ops.aten.addmm.default else node.args[1]
        assert isinstance(source, fx.Node)
        with graph.graph.inserting_before(node):
            hook = graph.graph.call_function(self._hook, (source,))
        node.replace_input_with(source, hook)
        graph.recompile()
        self.classifier = Classifier(
            graph, classifier.preprocessing, classifier.num_classes, probabilities=classifier.probabilities
        ).frozen()
        self._tail = _tail(graph, hook)

    def head(self, features: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of features ``(N, ..., D)``: the last layer alone, too cheap to count as a pass."""
        return self.classifier.logits(self._tail(features))

    def _hook(self, features: Tensor) -> Tensor:
        self._seen = features
        return features if self._change is None else self._change(features)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(N, classes)`` and features ``(N, ..., D)`` of samples ``(N, ...)``."""
        logits = self.classifier(x)
        assert self._seen is not None
        seen, self._seen = self._seen, None
        return logits, seen

    def logits(self, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits of samples with their features changed on the way."""
        self._change = change
        try:
            return self.features(x)[0]
        finally:
            self._change = None


def last_linear(graph: fx.GraphModule) -> fx.Node:
    """The last linear layer before the output; raises ``ModelUnsupported`` when there is none."""
    aten = torch.ops.aten
    for node in reversed(list(graph.graph.nodes)):
        assert isinstance(node, fx.Node)
        if node.target in (aten.linear.default, aten.addmm.default, aten.mm.default, aten.matmul.default):
            return node
    raise ModelUnsupported(
        "the model has no linear layer to read features at", field="families", fix="use other families"
    )


def _tail(graph: fx.GraphModule, hook: fx.Node) -> fx.GraphModule:
    """The part of the graph from ``hook`` to the output."""
    tail, copies = fx.Graph(), {}
    copies[hook] = tail.placeholder("features")
    needed, queue = set(), [n for n in graph.graph.nodes if n.op == "output"]
    while queue:
        node = queue.pop()
        if node not in needed and node is not hook:
            needed.add(node)
            queue += node.all_input_nodes
    for node in graph.graph.nodes:
        if node not in needed:
            continue
        if node.op == "placeholder":
            raise ModelUnsupported("the last linear layer is not the only way to the output", field="families")
        copies[node] = tail.node_copy(node, lambda n: copies[n])
    return fx.GraphModule(graph, tail)
