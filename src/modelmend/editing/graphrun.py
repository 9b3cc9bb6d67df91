"""Run a model form node by node: read values on the way, or compute the first part once and the rest many times."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from modelmend.metrics import count_passes
from modelmend.model.classifier import Classifier

_CACHE_BYTES = 512 * 2**20


@torch.no_grad()
def read_values(classifier: Classifier, x: Tensor, read: dict[str, Callable[[Tensor], None]], batch_size: int) -> None:
    """Hand the values of some nodes to functions, batch by batch; no value is kept.

    Args:
        classifier: The model.
        x: Samples ``(N, ...)`` in 0..1.
        read: Node name -> function that gets the node's value for each batch.
        batch_size: Samples a batch.
    """
    nodes = list(classifier.graph.graph.nodes)
    for part in torch.split(x, batch_size):
        count_passes(len(part))
        _run(classifier.graph, nodes, {}, classifier.model_input(part), read)


class Tail:
    """A model whose nodes before one node are computed once.

    Weights from that node on may change between calls; those before it may not.

    Args:
        classifier: The model.
        first: Name of the first node that is computed anew at every call.
        x: Samples ``(N, ...)`` in 0..1.
        batch_size: Samples a batch.
    """

    def __init__(self, classifier: Classifier, first: str, x: Tensor, batch_size: int) -> None:
        nodes = list(classifier.graph.graph.nodes)
        index = next(i for i, node in enumerate(nodes) if node.name == first)
        self._parts = torch.split(x, batch_size)
        self._head, self._tail = nodes[:index], nodes[index:]
        late = set(self._tail)
        self._crossing = [n for n in self._head if n.op != "get_attr" and any(user in late for user in n.users)]
        self._attributes = [n for n in self._head if n.op == "get_attr" and any(user in late for user in n.users)]
        self._values: list[dict[str, Any]] = []
        size = 0
        for part in self._parts:
            values = self._compute(classifier, part)
            size += sum(v.numel() * v.element_size() for v in values.values() if isinstance(v, Tensor))
            if size > _CACHE_BYTES:  # too large to keep: every call computes the head again
                self._values = []
                break
            self._values.append(values)

    def logits(self, classifier: Classifier) -> Tensor:
        """Logits ``(N, classes)`` on the CPU of a model with the same nodes (the given one or a clone of it)."""
        own = {node.name: node for node in classifier.graph.graph.nodes}
        tail = [own[node.name] for node in self._attributes + self._tail]
        out = []
        with torch.no_grad():
            for i, part in enumerate(self._parts):
                values = self._values[i] if self._values else self._compute(classifier, part)
                count_passes(len(part))
                start = {own[name]: value for name, value in values.items()}
                out.append(classifier.logits(_run(classifier.graph, tail, start, None, {})).cpu())
        return torch.cat(out)

    @torch.no_grad()
    def _compute(self, classifier: Classifier, part: Tensor) -> dict[str, Any]:
        count_passes(len(part))
        kept: dict[str, Any] = {}
        read = {node.name: _keep(kept, node.name) for node in self._crossing}
        own = {node.name: node for node in classifier.graph.graph.nodes}
        _run(classifier.graph, [own[n.name] for n in self._head], {}, classifier.model_input(part), read)
        return kept


def _keep(kept: dict[str, Any], name: str) -> Callable[[Any], None]:
    def keep(value: Any) -> None:
        kept[name] = value.clone() if isinstance(value, Tensor) else value  # a later in-place node must not alter it

    return keep


def _run(
    graph: GraphModule,
    nodes: Iterable[Node],
    start: dict[Node, Any],
    x: Tensor | None,
    read: dict[str, Callable[[Any], None]],
) -> Any:
    """Run nodes in order, dropping values after their last reader; gives the output node's value, if it is reached."""
    interpreter = Interpreter(graph, garbage_collect_values=False)
    interpreter.env = {node: _fresh(value) for node, value in start.items()}
    interpreter.args_iter = iter(() if x is None else (x,))
    todo = list(nodes)
    last: dict[Node, Node] = {}
    for node in todo:
        for source in node.all_input_nodes:
            last[source] = node
    result = None
    for node in todo:
        result = interpreter.run_node(node)
        interpreter.env[node] = result
        if node.name in read:
            read[node.name](result)
        for source in node.all_input_nodes:
            if last[source] is node:
                interpreter.env.pop(source, None)
    return result


def _fresh(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
