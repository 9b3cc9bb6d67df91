"""The few samples of a pool that represent it best: to repair with, never to judge with (errors are left out)."""

from __future__ import annotations

import torch
from torch import Tensor

from modelmend.domain.signals import observe
from modelmend.errors import SamplesError
from modelmend.model.classifier import Classifier
from modelmend.samples.data import Samples
from modelmend.samples.duplicates import merge_groups, near_pairs

LEAST_SURE = 0.1
"""Share of a class's rightly labelled samples that is left out, those the model is least sure of."""

OUTLIER = 3.5
"""Robust z-score of the distance to the class centre beyond which a sample is an outlier (Iglewicz, Hoaglin 1993)."""

_MOST_A_CLASS = 4000


def choose(classifier: Classifier, pool: Samples, k: int, seed: int) -> Tensor:
    """Choose ``k`` samples: balanced over classes, covering each class, each from a group of its own.

    Left out are copies and near-duplicates of one another, samples that the model labels otherwise or is least sure
    of, and outliers of their class. What remains of a class is covered by greedy facility location on penultimate
    features: each choice lowers most the summed distance of the class's samples to their nearest chosen one.

    Args:
        classifier: The model.
        pool: Labelled samples.
        k: How many; at least one.
        seed: Which classes get one more when ``k`` is not a multiple, and which samples of huge classes are looked at.

    Returns:
        Positions in ``pool`` ``(k,)`` int64, ascending.

    Raises:
        SamplesError: fewer than ``k`` samples are fit to be chosen.
    """
    if k < 1:
        raise SamplesError(f"cannot choose {k} samples", field="k", fix="ask for at least one")
    signals = observe(classifier, pool.x, norms=False)
    fit = eligible(pool, signals.logits, signals.features)
    if len(fit) < k:
        raise SamplesError(
            f"only {len(fit)} of {len(pool)} samples are fit to be chosen, {k} are wanted",
            where=pool.source,
            fix="give a larger pool, or check the labels",
        )
    generator = torch.Generator().manual_seed(seed)
    scaled = standardised(signals.features)
    chosen = []
    for label, count in _quotas(pool.y[fit], k, generator).items():
        members = fit[pool.y[fit] == label]
        if len(members) > _MOST_A_CLASS:
            members = members[torch.randperm(len(members), generator=generator)[:_MOST_A_CLASS]]
        chosen.append(members[facility_location(scaled[members], count)])
    return torch.cat(chosen).sort().values


def eligible(pool: Samples, logits: Tensor, features: Tensor) -> Tensor:
    """Positions of samples that may be chosen, ascending.

    Args:
        pool: N samples.
        logits: ``(N, classes)``.
        features: ``(N, D)``.
    """
    sure, best = logits.softmax(1).max(1)
    fit = best == pool.y
    scaled = standardised(features)
    for label in torch.unique(pool.y[fit]).tolist():
        rows = (fit & (pool.y == label)).nonzero().flatten()
        least = torch.quantile(sure[rows].double(), LEAST_SURE).float()
        far = (scaled[rows] - scaled[rows].median(0).values).norm(dim=1)
        spread = 1.4826 * (far - far.median()).abs().median().clamp_min(1e-6)
        fit[rows[(sure[rows] < least) | ((far - far.median()) / spread > OUTLIER)]] = False
    rows = fit.nonzero().flatten()
    return rows[_first_of_groups(pool.subset(rows), sure[rows])]


def facility_location(points: Tensor, count: int) -> Tensor:
    """Greedy facility location (Nemhauser, Wolsey and Fisher 1978): within ``1 - 1/e`` of the best coverage.

    Args:
        points: ``(M, D)``.
        count: How many to choose, at most M.

    Returns:
        Positions ``(count,)`` in the order chosen; the first is the medoid.
    """
    apart = torch.cdist(points, points)
    nearest = torch.full((len(points),), float(apart.max()) + 1)
    chosen: list[int] = []
    for _ in range(count):
        gain = (nearest[:, None] - apart).clamp_min_(0).sum(0)
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        nearest = torch.minimum(nearest, apart[chosen[-1]])
    return torch.tensor(chosen, dtype=torch.long)


def standardised(features: Tensor) -> Tensor:
    """Features ``(N, D)`` with mean zero and variance one a column; constant columns become zero."""
    spread = features.std(0, correction=0)
    return (features - features.mean(0)) / torch.where(spread > 1e-6, spread, torch.inf)


def _first_of_groups(samples: Samples, sure: Tensor) -> Tensor:
    """One sample a group of copies and near-duplicates: the one that the model is surest of. Ascending."""
    pairs = near_pairs(samples.x) if samples.kind == "image" else iter(())
    groups = merge_groups(samples, pairs).tolist()
    best: dict[int, int] = {}
    for row, group in enumerate(groups):
        if group not in best or sure[row] > sure[best[group]]:
            best[group] = row
    return torch.tensor(sorted(best.values()), dtype=torch.long)


def _quotas(labels: Tensor, k: int, generator: torch.Generator) -> dict[int, int]:
    """How many of each class: as equal as the classes' sizes allow; the seed decides who gets one more."""
    sizes = torch.bincount(labels)
    present = sizes.nonzero().flatten()
    order = present[torch.randperm(len(present), generator=generator)].tolist()
    quota = dict.fromkeys(order, 0)
    left = k
    while left:
        for label in order:
            if left and quota[label] < int(sizes[label]):
                quota[label] += 1
                left -= 1
    return {label: count for label, count in sorted(quota.items()) if count}
