"""Fine-pruning: cut channels that clean samples leave dormant, then fine-tune (Liu et al., arXiv 1805.12185)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Interpreter, Node

from benchmarks.baselines.fine_tuning import fine_tuning
from benchmarks.baselines.graph import Norm, accuracy, norms, tensor
from benchmarks.parts import NotApplicableError, Parts
from modelmend.metrics import count_passes
from modelmend.model.classifier import Classifier
from modelmend.progress import Progress, silent

LARGEST_DROP = 0.10
"""Cutting stops before the accuracy on the select split falls by more (BackdoorBench's setting)."""


def fine_pruning(
    classifier: Classifier, parts: Parts, seed: int, *, effort: float = 1.0, progress: Progress = silent
) -> Classifier:
    """Cut channels of the last batch norm, least mean positive activation first, then fine-tune."""
    found = norms(classifier.graph)
    if not found:
        raise NotApplicableError("fine-pruning here cuts at a batch norm")
    last = found[-1]
    order = _activation(classifier, last, parts.repair[0]).argsort()
    pruned = classifier.clone()
    gamma, beta = tensor(pruned.graph, last.weight), tensor(pruned.graph, last.bias)
    floor = accuracy(pruned, parts.select.x, parts.select.y) - LARGEST_DROP
    for done, channel in enumerate(order.tolist()):
        with torch.no_grad():
            kept = gamma[channel].clone(), beta[channel].clone()
            gamma[channel], beta[channel] = 0, 0
            if accuracy(pruned, parts.select.x, parts.select.y) < floor:
                gamma[channel], beta[channel] = kept
                break
        progress("fine-pruning: cut", done + 1, len(order))
    cut = gamma.detach() == 0
    tuned = fine_tuning(pruned, parts, seed, effort=effort, progress=progress)
    with torch.no_grad():
        tensor(tuned.graph, last.weight)[cut] = 0
        tensor(tuned.graph, last.bias)[cut] = 0
    return tuned


class _Until(Interpreter):
    """Runs the graph and keeps one node's value."""

    def __init__(self, graph: torch.fx.GraphModule, node: Node) -> None:
        super().__init__(graph)
        self.wanted, self.value = node.name, torch.empty(0)

    def run_node(self, n: Node) -> object:
        result = super().run_node(n)
        if n.name == self.wanted:
            self.value = result
        return result


@torch.no_grad()
def _activation(classifier: Classifier, norm: Norm, x: Tensor) -> Tensor:
    """Mean positive part of each channel ``(C,)`` over samples and positions."""
    runner = _Until(classifier.graph, norm.node)
    total = torch.zeros(())
    for part in torch.split(x, 256):
        runner.run(classifier.model_input(part))
        count_passes(len(part))
        total = total + torch.relu(runner.value).mean((2, 3)).sum(0)
    return total / len(x)
