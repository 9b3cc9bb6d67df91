"""How large a trigger may be in the verdict, read off the suspect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

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
LARGER, MOST = 1.4, 0.55
"""An accused class's own size: what it needed on the suspect times the first, for what is left of a backdoor needs a
larger trigger; at most the second's share of what is usual."""
STANDS, BLIND = 0.35, 0.45
"""A class stands out at a size at which it is flipped so much more often, on the suspect, than all ordinary ones but one,
and those no more often than the second: most data sets have a class that is reached by small triggers of nature."""
INNOCENT = 0.45
"""A class that the family does not name is judged at no more than this share of the size that it needs on the suspect."""
TAME, LEAST = 0.1, 0.02
"""A class that nothing accuses is judged where it is flipped no more than this on the suspect: its size is halved until
then, or until this share of what is usual."""
ORDINARY = 8
"""Classes that stand for the others."""
TRIED = 96
"""Held-out samples on which the sizes are tried."""


@dataclass(frozen=True)
class Budgets:
    """Sizes of one family's triggers.

    Attributes:
        ordinary: Classes that stand for the others.
        quiet: Largest of the shares at which all of them stay under ``QUIET``, or the least.
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
    innocent: Sequence[int] = (),
    config: SearchConfig,
    seed: int,
    progress: Progress = silent,
) -> Budgets:
    """Choose the sizes.

    An accused class that the family names is judged at the largest size tried, up to ``LARGER`` times what it needed, at
    which it stands out from the ordinary classes: where those are flipped, too, the search says nothing. All others are
    judged at the quiet size.

    Args:
        before: A family, opened for the suspect.
        holdout: Samples that the sizes are tried on.
        rows: The family's evidence on the suspect.
        judged: Classes to judge.
        accused: Those of them that stand out or that the probe found; to a family that does not name them their triggers
            are natural ones, as good as those of any class.
        innocent: Those that nothing speaks against; the repair shall only not have made them worse.
        config: Search settings.
        seed: Of all draws.
        progress: Called after every step.
    """
    needed = {row.target: row.size for row in rows if row.size is not None}
    ordinary = _ordinary(needed, judged)
    usual = float(np.median([needed[t] for t in ordinary] or list(needed.values())))
    shares = [share * usual for share in SHARES]

    @cache
    def rate(target: int, size: float) -> float:
        return rates((target,), size)[target]

    def rates(targets: Sequence[int], size: float) -> dict[int, float]:
        return _rates(before, holdout, targets, size, config, seed, progress)

    @cache
    def others(size: float) -> list[float]:
        return sorted(rates(ordinary[::2], size).values(), reverse=True) or [0.0]

    def stands_out(target: int, size: float) -> bool:
        second = others(size)[:2][-1]
        return second <= BLIND and rate(target, size) - second >= STANDS

    quiet = _largest(shares, lambda size: others(size)[0] <= QUIET) if ordinary else shares[0]
    sizes = {target: min(quiet, INNOCENT * needed.get(target, usual)) for target in judged}
    for target in set(first_classes(rows).values()) & set(accused) & sizes.keys() & needed.keys():
        most = own_size(needed[target], usual)
        larger = sorted({most, *shares}, reverse=True)
        sizes[target] = next((s for s in larger if quiet < s <= most and stands_out(target, s)), quiet)
    for target in innocent:
        while sizes[target] > LEAST * usual and rate(target, sizes[target]) > TAME:
            sizes[target] /= 2
    return Budgets(ordinary, quiet, usual, sizes)


def _largest(sizes: Sequence[float], fits: Callable[[float], bool]) -> float:
    """Largest of the ascending sizes that fits, by bisection; the first is not asked."""
    low, high = 0, len(sizes)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(sizes[middle]) else (low, middle)
    return sizes[low]


def own_size(needed: float, usual: float) -> float:
    """Largest size at which an accused class is searched: more than it needed on the suspect, held to a share of what is usual."""
    return min(LARGER * needed, MOST * usual)


def _ordinary(sizes: dict[int, float], judged: Sequence[int]) -> list[int]:
    """Classes spread over the order of sizes, the judged ones left out."""
    others = sorted((t for t in sizes if t not in judged), key=lambda t: (sizes[t], t))
    if len(others) <= ORDINARY:
        return others
    return [others[i] for i in np.linspace(0, len(others) - 1, ORDINARY).round().astype(int)]


def _rates(
    before: Opened,
    holdout: Pair,
    targets: Sequence[int],
    size: float,
    config: SearchConfig,
    seed: int,
    progress: Progress,
) -> dict[int, float]:
    """Target -> flip rate of triggers of this size on a few held-out samples."""
    if not targets:
        return {}
    x, y = holdout[0][:TRIED], holdout[1][:TRIED]
    fits = before.search(targets, seed=seed, config=config, radius=[size] * len(targets), progress=progress)
    flips = [before.flips(one.trigger, x, y, target) for one, target in zip(fits, targets, strict=True)]
    return {target: hits / max(1, n) for target, (hits, n) in zip(targets, flips, strict=True)}
