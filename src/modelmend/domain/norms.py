"""Distance of what batch norm sees to what it remembers of training: the one trace of the training data in a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modelmend.domain.signals import NormLayer

_EPS = 1e-5


def hellinger(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor) -> Tensor:
    """Squared Hellinger distance of two normal distributions, elementwise, 0 (equal) to 1 (disjoint).

    ``1 - sqrt(2 s1 s2 / (v1 + v2)) exp(-(m1 - m2)^2 / (4 (v1 + v2)))`` with variances ``v = s^2``.
    """
    total = v1 + v2
    overlap = (2 * (v1 * v2).sqrt() / total).sqrt() * torch.exp(-((m1 - m2) ** 2) / (4 * total))
    return (1 - overlap).clamp(0, 1)


def layer_distances(layer: NormLayer, weights: Tensor) -> Tensor:
    """Mean over channels of the squared Hellinger distance between seen and remembered activations.

    Args:
        layer: What one batch-norm layer saw of N samples.
        weights: ``(B, N)``, rows sum to one: one weighting of the samples a row.

    Returns:
        ``(B,)`` in 0..1.
    """
    mean = weights @ layer.seen_mean
    var = (weights @ layer.seen_square - mean**2).clamp_min(0)
    return hellinger(mean, var + _EPS, layer.mean, layer.var + _EPS).mean(1)


def distance(layers: Sequence[NormLayer], weights: Tensor) -> Tensor:
    """Root of the mean over layers of the squared distances, ``(B,)`` in 0..1. Layers must not be empty."""
    return torch.stack([layer_distances(layer, weights) for layer in layers]).mean(0).sqrt()


def resamplings(groups: Tensor, draws: int, seed: int) -> Tensor:
    """Bootstrap weights ``(draws, N)``: whole groups are drawn with replacement; rows sum to one."""
    number = torch.unique(groups, return_inverse=True)[1]
    count = int(number.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(0, count, (draws, count), generator=generator)
    times = torch.zeros(draws, count).scatter_add_(1, drawn, torch.ones(draws, count))
    weights = times[:, number]
    return weights / weights.sum(1, keepdim=True).clamp_min(1)
