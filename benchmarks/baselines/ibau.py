"""I-BAU: unlearn the strongest universal perturbation by implicit hypergradients (Zeng et al., arXiv 2110.03735)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.baselines.graph import parameters, trainable
from benchmarks.parts import Parts, batches
from modelmend.model.classifier import Classifier
from modelmend.progress import Progress, silent

ROUNDS, FIXED_POINT_STEPS, BATCH = 5, 5, 128
LR, INNER_LR, ASCENT_LR = 1e-3, 0.1, 10.0
RADIUS, SHRINK, UNLEARNT_SHARE = 10.0, 1e-3, 0.2
ASCENT_STEPS = 20


def i_bau(
    classifier: Classifier, parts: Parts, seed: int, *, effort: float = 1.0, progress: Progress = silent
) -> Classifier:
    """``min_w L(x + d*(w), y)`` with ``d*(w) = argmax_d L(x + d, y)``, batch norm frozen; the last round counts."""
    tuned = trainable(classifier)
    weights = parameters(tuned)
    x, y = parts.repair
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(weights, LR)
    rounds = max(1, round(ROUNDS * effort))
    for done in range(rounds):
        delta = _universal(tuned, x, y, generator)
        for images, labels in batches(x, y, BATCH, generator):
            gradients = _hypergradient(tuned, weights, delta, images, labels, generator)
            for weight, gradient in zip(weights, gradients, strict=True):
                weight.grad = gradient
            optimizer.step()
        progress("I-BAU", done + 1, rounds)
    return tuned.frozen()


def _inner(classifier: Classifier, delta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return -nn.functional.cross_entropy(classifier(x + delta), y) + SHRINK * delta.square().sum()


def _universal(classifier: Classifier, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """One perturbation ``(1, C, H, W)`` for all samples, within an L2 ball."""
    delta = torch.zeros_like(x[:1], requires_grad=True)
    taken = 0
    while taken < ASCENT_STEPS:
        for images, labels in batches(x, y, BATCH, generator):
            gradient = torch.autograd.grad(_inner(classifier, delta, images, labels), delta)[0]
            delta = (delta - ASCENT_LR * gradient).detach()
            delta = (delta * min(1.0, RADIUS / (float(delta.norm()) + 1e-12))).requires_grad_()
            taken += 1
    return delta


def _hypergradient(
    classifier: Classifier,
    weights: list[nn.Parameter],
    delta: Tensor,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
) -> list[Tensor]:
    """``d_w L + (d_w Phi)^T v`` with ``v = (d_delta Phi)^T v + d_delta L``, ``Phi`` one inner gradient step."""
    share = (torch.rand(len(x), 1, 1, 1, generator=generator) < UNLEARNT_SHARE).float()
    outer = nn.functional.cross_entropy(classifier(x + share * delta), y)
    to_delta, *to_weights = torch.autograd.grad(outer, [delta, *weights])
    step = torch.autograd.grad(_inner(classifier, delta, x, y), delta, create_graph=True)[0]
    phi = delta - INNER_LR * step
    v = to_delta
    for _ in range(FIXED_POINT_STEPS):
        v = torch.autograd.grad(phi, delta, v, retain_graph=True)[0] + to_delta
    implicit = torch.autograd.grad(phi, weights, v, allow_unused=True)
    return [a if b is None else a + b for a, b in zip(to_weights, implicit, strict=True)]
