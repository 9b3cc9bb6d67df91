"""What one forward pass tells about samples: outputs, penultimate features, what batch norm sees against its memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from modelmend.metrics import count_passes
from modelmend.model.classifier import Classifier
from modelmend.model.execute import Before, Program

BATCH = 128


@dataclass(frozen=True)
class NormLayer:
    """What one batch-norm layer sees, beside what it remembers of training.

    Attributes:
        name: Node name.
        mean: ``(C,)`` running mean.
        var: ``(C,)`` running variance.
        seen_mean: ``(N, C)`` mean over positions, a sample.
        seen_square: ``(N, C)`` mean of squares over positions, a sample.
    """

    name: str
    mean: Tensor
    var: Tensor
    seen_mean: Tensor
    seen_square: Tensor


@dataclass(frozen=True)
class Signals:
    """Of N samples, on the CPU in float32.

    Attributes:
        logits: ``(N, classes)``.
        features: ``(N, D)`` input of the last linear layer; the logits where there is none.
        norms: One entry a batch-norm layer that keeps running statistics.
    """

    logits: Tensor
    features: Tensor
    norms: tuple[NormLayer, ...]


@torch.no_grad()
def observe(classifier: Classifier, x: Tensor, *, norms: bool = True) -> Signals:
    """One forward pass.

    Args:
        classifier: The model.
        x: Samples ``(N, ...)`` as stored, N > 0.
        norms: Whether to look at batch norm too.
    """
    program = Program(classifier.graph)
    watched = _norm_nodes(program) if norms else {}
    head = _head(program)
    seen: dict[int, list[tuple[Tensor, Tensor]]] = {index: [] for index in watched}
    features: list[Tensor] = []
    hooks: dict[int, Before] = {index: _norm_hook(seen[index]) for index in watched}
    if head is not None:
        hooks[head] = _head_hook(features)
    logits = []
    for part in torch.split(x, BATCH):
        count_passes(len(part))
        output = program.run(classifier.model_input(part), before=hooks)
        logits.append(classifier.logits(output).cpu())
    every = torch.cat(logits)
    layers = []
    for index, (mean, var) in watched.items():
        means, squares = (torch.cat(column) for column in zip(*seen[index], strict=True))
        layers.append(NormLayer(program.nodes[index].name, mean, var, means, squares))
    return Signals(every, torch.cat(features) if features else every, tuple(layers))


def _norm_nodes(program: Program) -> dict[int, tuple[Tensor, Tensor]]:
    """Positions of batch-norm nodes with running statistics -> those statistics."""
    found = {}
    for index, node in enumerate(program.nodes):
        if node.op != "call_function" or "batch_norm" not in str(node.target):
            continue
        mean, var = node.args[3], node.args[4]
        if isinstance(mean, Node) and isinstance(var, Node) and mean.op == var.op == "get_attr":
            found[index] = (_tensor(program, mean), _tensor(program, var))
    return found


def _tensor(program: Program, node: Node) -> Tensor:
    owner = node.graph.owning_module
    assert owner is not None
    path, _, leaf = str(node.target).rpartition(".")
    value: Tensor = getattr(owner.get_submodule(path), leaf)
    return value.detach().float().cpu()


def _head(program: Program) -> int | None:
    """Position of the last linear operator that the output hangs on."""
    linear = ("aten.linear.default", "aten.addmm.default", "aten.mm.default")
    found = [i for i, n in enumerate(program.nodes) if n.op == "call_function" and str(n.target) in linear]
    return found[-1] if found else None


def _norm_hook(into: list[tuple[Tensor, Tensor]]) -> Before:
    def look(args: list[object]) -> list[object]:
        x = args[0]
        assert isinstance(x, Tensor)
        flat = x.float().flatten(2) if x.dim() > 2 else x.float().unsqueeze(2)
        into.append((flat.mean(2).cpu(), flat.square().mean(2).cpu()))
        return args

    return look


def _head_hook(into: list[Tensor]) -> Before:
    def look(args: list[object]) -> list[object]:
        x = (
            args[1]
            if len(args) > 2 and isinstance(args[1], Tensor) and args[1].dim() == 2 and _is_bias(args[0])
            else args[0]
        )
        assert isinstance(x, Tensor)
        into.append(x.float().reshape(len(x), -1).cpu())
        return args

    return look


def _is_bias(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 1
