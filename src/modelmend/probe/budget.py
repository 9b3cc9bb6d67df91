"""How large a trigger may be in the verdict, read off the suspect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from modelmend.probe.families import Opened
from modelmend.probe.search import SearchConfig
from modelmend.progress import Progress, silent
from modelmend.records import ClassEvidence

Pair = tuple[Tensor, Tensor]

SHARES = (0.1, 0.2, 0.35, 0.5)
"""Sizes tried, as shares of the median size that an ordinary class of the suspect needs."""
QUIET = 0.05
"""Flip rate that all ordinary classes stay under at the quiet size."""
LOUD = 0.2
"""Median flip rate of the ordinary classes that marks the loud size: past it, success says nothing about one class."""
SLACK = 1.1
"""An accused class is judged at the size of its own trigger times this, if that is more than the quiet size ..."""
MOST = 0.55
"""... but at no more than this share of the median size of ordinary classes, and not past the loud size."""
INNOCENT = 0.45
"""A class that nothing accuses is judged at no more than this share of the size that it needs on the suspect."""
ORDINARY = 8
"""Classes that stand for the others."""
TRIED = 96
"""Held-out samples on which the quiet size is found."""


@dataclass(frozen=True)
class Budgets:
    """Sizes of one family's triggers.

    Attributes:
        ordinary: Classes that stand for the others.
        quiet: Largest size tried at which all of them stay under ``QUIET``.
        loud: Largest size tried at which half of them stay under ``LOUD``.
        usual: Median size that they need.
        sizes: Judged class -> size at which it is judged.
    """

    ordinary: list[int]
    quiet: float
    loud: float
    usual: float
    sizes: dict[int, float]


def budgets(
    before: Opened,
    holdout: Pair,
    rows: Sequence[ClassEvidence],
    judged: Sequence[int],
    *,
    accused: Sequence[int],
    config: SearchConfig,
    seed: int,
    progress: Progress = silent,
) -> Budgets:
    """Choose the sizes.

    Args:
        before: A family, opened for the suspect.
        holdout: Samples that the quiet size is tried on.
        rows: The family's evidence on the suspect.
        judged: Classes to judge.
        accused: Those of them that stand out or that the probe found: judged at their own size.
        config: Search settings.
        seed: Of all draws.
        progress: Called after every step.
    """
    needed = {row.target: row.size for row in rows if row.size is not None}
    ordinary = _ordinary(needed, judged)
    usual = float(np.median([needed[t] for t in ordinary] or list(needed.values())))
    quiet, loud = _levels(before, holdout, ordinary, [share * usual for share in SHARES], config, seed, progress)
    sizes = {target: min(quiet, INNOCENT * needed.get(target, usual)) for target in judged}
    for row in rows:
        if row.target in sizes and row.size is not None and row.target in accused:
            sizes[row.target] = max(quiet, min(loud, own_size(row.size, usual)))
    return Budgets(ordinary, quiet, loud, usual, sizes)


def own_size(needed: float, usual: float) -> float:
    """Size at which an accused class is searched: what it needed on the suspect, held to a share of what is usual."""
    return min(SLACK * needed, MOST * usual)


def _ordinary(sizes: dict[int, float], judged: Sequence[int]) -> list[int]:
    """Classes spread over the order of sizes, the judged ones left out."""
    others = sorted((t for t in sizes if t not in judged), key=lambda t: (sizes[t], t))
    if len(others) <= ORDINARY:
        return others
    return [others[i] for i in np.linspace(0, len(others) - 1, ORDINARY).round().astype(int)]


def _levels(
    before: Opened,
    holdout: Pair,
    ordinary: Sequence[int],
    radii: Sequence[float],
    config: SearchConfig,
    seed: int,
    progress: Progress,
) -> tuple[float, float]:
    """Quiet and loud size."""
    if not ordinary:
        return radii[0], radii[-1]
    ordinary = ordinary[::2]
    targets = [target for _ in radii for target in ordinary]
    radius = [r for r in radii for _ in ordinary]
    fits = before.search(targets, seed=seed, config=config, radius=radius, progress=progress)
    x, y = holdout[0][:TRIED], holdout[1][:TRIED]
    flips = [before.flips(one.trigger, x, y, target) for one, target in zip(fits, targets, strict=True)]
    rates = np.array([hits / max(1, n) for hits, n in flips]).reshape(len(radii), len(ordinary))
    quiet = max((r for r, row in zip(radii, rates, strict=True) if row.max() <= QUIET), default=radii[0])
    return quiet, max((r for r, row in zip(radii, rates, strict=True) if np.median(row) <= LOUD), default=radii[0])
