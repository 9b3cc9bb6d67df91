"""Largest margins: how sure of a class can *any* input make the model? A backdoor leaves one class too sure.

After MM-BD (arXiv 2205.06900): the classification margin of each class is driven up by gradient ascent from noise. No
sample is needed and no form of trigger is assumed. It yields an input and not a change of inputs, so it is evidence on
the classes only: it hands no trigger to a repair. Ours: normalised steps with momentum, and the same robust anomaly
over the classes as for the trigger families, on the log of the margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modelmend.model.classifier import Classifier
from modelmend.probe.anomaly import anomaly_index
from modelmend.probe.fast import fast_copy
from modelmend.probe.form import per_class, sample_range
from modelmend.progress import Progress, silent
from modelmend.records import ClassEvidence

MARGIN = "margin"
NOISE = 0.2
"""Spread of log margins over the classes that means nothing."""
STARTS = 4
"""Random starts of a class; the largest margin counts."""
STEPS = 100
LENGTH, MOMENTUM = 0.5, 0.5
"""Length (L2, for inputs of range 1) of a step, and what is kept of the one before."""
TOGETHER = 160
"""Inputs in one forward pass."""
LEAST = 1e-3
"""Floor of a margin: a class that no input reaches has none."""


def margin_evidence(
    classifier: Classifier, x: Tensor, targets: Sequence[int], *, seed: int, progress: Progress = silent
) -> tuple[ClassEvidence, ...]:
    """``log max_z (f_t(z) - max_{k != t} f_k(z))`` of each class, compared over the classes.

    Args:
        classifier: The model; not changed.
        x: A few samples ``(N, ...)`` that show shape and range.
        targets: Classes to look at.
        seed: Of the starts; a class's result does not depend on which others are looked at.
        progress: Called after every step.
    """
    margins = largest_margins(classifier, x, targets, seed=seed, progress=progress)
    strengths = margins.clamp_min(LEAST).log().tolist()
    indices = anomaly_index(strengths, NOISE)
    return tuple(
        ClassEvidence(family=MARGIN, target=t, success=None, strength=s, anomaly=float(a))
        for t, s, a in zip(targets, strengths, indices, strict=True)
    )


def largest_margins(
    classifier: Classifier, x: Tensor, targets: Sequence[int], *, seed: int, progress: Progress = silent
) -> Tensor:
    """Largest margin ``(len(targets),)`` found for each class, over ``STARTS`` inputs of noise."""
    x = x.to(classifier.device)
    model, (low, high) = fast_copy(classifier, x), sample_range(x)
    goals = torch.tensor(targets, device=x.device).repeat_interleave(STARTS)
    parts = torch.split(goals, TOGETHER)
    noise = [torch.rand((STARTS, *x.shape[1:]), generator=_generator(seed, target)) for target in targets]
    starts = low + (high - low) * torch.cat(noise).to(x.device)
    found: list[Tensor] = []
    for number, (goal, start) in enumerate(zip(parts, torch.split(starts, TOGETHER), strict=True)):
        z, velocity = start.requires_grad_(True), torch.zeros_like(start)
        for step in range(STEPS):
            gradient = torch.autograd.grad(_margin(model(z), goal).sum(), z)[0]
            length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
            velocity = MOMENTUM * velocity + gradient / per_class(length, gradient)
            moved = z.detach() + LENGTH * (high - low) * velocity
            z = torch.minimum(torch.maximum(moved, low), high).requires_grad_(True)
            progress(f"probe {MARGIN}", number * STEPS + step + 1, len(parts) * STEPS)
        with torch.no_grad():
            found.append(_margin(model(z), goal))
    return torch.cat(found).reshape(len(targets), STARTS).amax(1).cpu()


def _margin(logits: Tensor, goal: Tensor) -> Tensor:
    own = logits.gather(1, goal[:, None])
    others = logits.scatter(1, goal[:, None], -math.inf).amax(1)
    return own.squeeze(1) - others


def _generator(seed: int, target: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed * 1_000_003 + target)
