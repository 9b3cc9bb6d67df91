"""Clean unlearning: a copy forgets the clean task; what still leads to a class for sure is the backdoor.

After RNP (ICML 2023, arXiv 2305.14876), which unlearns the clean task by gradient ascent and sees the backdoor survive.
Ours unlearns towards the uniform answer, so that no class is preferred, and then looks for the smallest change that
makes the copy *sure* of a class: its probability must pass one half.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modelmend.model.classifier import Classifier
from modelmend.probe.fast import fast_copy
from modelmend.probe.search import Forward

STEPS = 60
BATCH = 32
RATE = 0.01
FORGOTTEN = 0.95
"""Share of the largest entropy at which the clean task counts as forgotten."""


def unlearned(classifier: Classifier, x: Tensor, y: Tensor, *, seed: int) -> Forward:
    """View of a copy that has forgotten the clean task; an extra class stands for *not sure*."""
    del y
    copy = unlearn(classifier, x, seed=seed)

    def forward(changed: Tensor, clean: Tensor) -> Tensor:
        del clean
        chances = torch.log_softmax(copy(changed), 1)
        return torch.cat((chances, torch.full_like(chances[:, :1], math.log(0.5))), 1)

    return forward


def unlearn(classifier: Classifier, x: Tensor, *, seed: int) -> Classifier:
    """A copy whose answers to clean samples are near uniform, after as few small steps as that takes.

    ``min_theta KL(uniform || f(x))`` by SGD with momentum and unit-norm gradients relative to the weights.

    Args:
        classifier: The model; not changed.
        x: Clean samples ``(N, ...)``.
        seed: Of the batches.
    """
    copy = classifier.clone()
    weights = [p for p in copy.graph.parameters() if p.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.SGD(weights, lr=RATE, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    largest = math.log(classifier.num_classes)
    for _ in range(STEPS):
        chances = torch.log_softmax(copy(x[torch.randint(len(x), (BATCH,), generator=generator)]), 1)
        if float(-(chances.exp() * chances).sum(1).mean().detach()) >= FORGOTTEN * largest:
            break
        optimizer.zero_grad()
        (-chances.mean(1)).mean().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    return fast_copy(copy, x)
