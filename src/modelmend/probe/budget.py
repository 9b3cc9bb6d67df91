"""How large a trigger may be in the verdict, read off the suspect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from modelmend.probe.families import Opened
from modelmend.probe.score import first_classes
from modelmend.probe.search import SearchConfig
from modelmend.progress import Progress, silent
from modelmend.records import ClassEvidence

Pair = tuple[Tensor, Tensor]

SHARES = (0.1, 0.2, 0.35, 0.5)
"""Sizes tried, as shares of the median size that an ordinary class of the suspect needs."""
QUIET = 0.05
"""Flip rate that all ordinary classes stay under at the quiet size."""
SLACK = 1.1
"""An accused class that the family names is judged at the size of its own trigger times this, if that is more than the
quiet size ..."""
MOST = 0.55
"""... but at no more than this share of the median size of ordinary classes."""
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
        usual: Median size that they need.
        sizes: Judged class -> size at which it is judged.
    """

    ordinary: list[int]
    quiet: float
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
        accused: Those of them that stand out or that the probe found: judged at their own size if the family names them;
            to another family their triggers are natural ones, as good as those of any class.
        config: Search settings.
        seed: Of all draws.
        progress: Called after every step.
    """
    needed = {row.target: row.size for row in rows if row.size is not None}
    ordinary = _ordinary(needed, judged)
    usual = float(np.median([needed[t] for t in ordinary] or list(needed.values())))
    quiet = _quiet(before, holdout, ordinary, [share * usual for share in SHARES], config, seed, progress)
    sizes = {target: min(quiet, INNOCENT * needed.get(target, usual)) for target in judged}
    for target in set(first_classes(rows).values()) & set(accused) & sizes.keys() & needed.keys():
        sizes[target] = max(quiet, own_size(needed[target], usual))
    return Budgets(ordinary, quiet, usual, sizes)


def own_size(needed: float, usual: float) -> float:
    """Size at which an accused class is searched: what it needed on the suspect, held to a share of what is usual."""
    return min(SLACK * needed, MOST * usual)


def _ordinary(sizes: dict[int, float], judged: Sequence[int]) -> list[int]:
    """Classes spread over the order of sizes, the judged ones left out."""
    others = sorted((t for t in sizes if t not in judged), key=lambda t: (sizes[t], t))
    if len(others) <= ORDINARY:
        return others
    return [others[i] for i in np.linspace(0, len(others) - 1, ORDINARY).round().astype(int)]


def _quiet(
    before: Opened,
    holdout: Pair,
    ordinary: Sequence[int],
    radii: Sequence[float],
    config: SearchConfig,
    seed: int,
    progress: Progress,
) -> float:
    if not ordinary:
        return radii[0]
    ordinary = ordinary[::2]
    targets = [target for _ in radii for target in ordinary]
    radius = [r for r in radii for _ in ordinary]
    fits = before.search(targets, seed=seed, config=config, radius=radius, progress=progress)
    x, y = holdout[0][:TRIED], holdout[1][:TRIED]
    flips = [before.flips(one.trigger, x, y, target) for one, target in zip(fits, targets, strict=True)]
    rates = np.array([hits / max(1, n) for hits, n in flips]).reshape(len(radii), len(ordinary))
    return max((r for r, row in zip(radii, rates, strict=True) if row.max() <= QUIET), default=radii[0])
