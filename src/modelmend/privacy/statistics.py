"""Statistics of a membership audit: AUC with DeLong's interval, paired differences, TPR at a low FPR, sample sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modelmend.metrics import clopper_pearson

Floats = NDArray[np.float64]
_BOOTSTRAP_PAIRS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A value with its two-sided interval."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of the width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Components:
    """DeLong's structural components of an AUC: one value for each member (``V10``) and non-member (``V01``)."""

    auc: float
    members: Floats
    nonmembers: Floats


def components(members: ArrayLike, nonmembers: ArrayLike) -> Components:
    """AUC and its structural components from midranks.

    ``AUC = P(member score > non-member score) + P(equal) / 2``. Source: DeLong, DeLong & Clarke-Pearson,
    Biometrics 44 (1988), in the fast form of Sun & Xu, IEEE Signal Processing Letters 21 (2014).

    Args:
        members: Scores ``(m,)``, larger = more like a member.
        nonmembers: Scores ``(n,)``.

    Raises:
        ValueError: fewer than two on a side, or a score that is not finite.
    """
    from scipy.stats import rankdata

    a, b = np.asarray(members, dtype=np.float64), np.asarray(nonmembers, dtype=np.float64)
    m, n = len(a), len(b)
    if min(m, n) < 2:
        raise ValueError(f"an AUC needs two scores a side, not {m} and {n}")
    both = np.concatenate([a, b])
    if not np.isfinite(both).all():
        raise ValueError("a score is not finite")
    joint = rankdata(both)
    v10 = (joint[:m] - rankdata(a)) / n
    v01 = 1 - (joint[m:] - rankdata(b)) / m
    return Components(float(v10.mean()), v10, v01)


def auc(members: ArrayLike, nonmembers: ArrayLike) -> float:
    """Area under the ROC curve, 0..1."""
    return components(members, nonmembers).auc


def auc_interval(members: ArrayLike, nonmembers: ArrayLike, level: float = 0.95) -> Interval:
    """AUC with DeLong's interval, cut to 0..1.

    The standard error is at least ``0.5 / min(m, n)`` (ours): tied or perfectly separated scores have a variance
    of 0, which would claim certainty from a handful of samples.
    """
    parts = components(members, nonmembers)
    error = math.sqrt(_variance(parts.members, parts.nonmembers))
    return _wald(parts.auc, max(error, _floor(parts)), level, 0.0, 1.0)


def paired_difference(
    before: tuple[ArrayLike, ArrayLike], after: tuple[ArrayLike, ArrayLike], level: float
) -> Interval:
    """AUC after minus AUC before on the same samples, with DeLong's interval for correlated curves.

    Args:
        before: Scores of members and non-members before.
        after: Scores of the same samples in the same order after.
        level: Of the interval.
    """
    old, new = components(*before), components(*after)
    if len(old.members) != len(new.members) or len(old.nonmembers) != len(new.nonmembers):
        raise ValueError("paired scores differ in number")
    error = math.sqrt(_variance(new.members - old.members, new.nonmembers - old.nonmembers))
    return _wald(new.auc - old.auc, error, level, -1.0, 1.0)


def paired_bootstrap(
    before: tuple[ArrayLike, ArrayLike],
    after: tuple[ArrayLike, ArrayLike],
    level: float,
    *,
    seed: int,
    draws: int = 1000,
) -> Interval:
    """AUC after minus AUC before on the same samples, with a percentile bootstrap interval.

    Members and non-members are drawn apart, with replacement; a draw takes a sample's score before and after together.
    Above 4 million pairs ``paired_difference`` answers, which is the same in the limit.
    """
    old = [np.asarray(part, dtype=np.float64) for part in before]
    new = [np.asarray(part, dtype=np.float64) for part in after]
    if [len(p) for p in old] != [len(p) for p in new]:
        raise ValueError("paired scores differ in number")
    if len(old[0]) * len(old[1]) > _BOOTSTRAP_PAIRS:
        return paired_difference(before, after, level)
    rng = np.random.default_rng(seed)
    value = components(*new).auc - components(*old).auc
    differences = np.empty(draws)
    comparison = _wins(*new) - _wins(*old)
    m, n = comparison.shape
    for i in range(draws):
        rows = np.bincount(rng.integers(0, m, m), minlength=m)
        columns = np.bincount(rng.integers(0, n, n), minlength=n)
        differences[i] = rows @ comparison @ columns / (m * n)
    tail = (1 - level) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def tpr_at_fpr(members: ArrayLike, nonmembers: ArrayLike, fpr: float = 0.01, level: float = 0.95) -> Interval:
    """Share of members above the threshold that at most ``fpr`` of the non-members pass, with Clopper-Pearson.

    The threshold is taken as given; it is the score that the ``floor(fpr * n)`` highest non-members exceed.
    """
    a, b = np.asarray(members, dtype=np.float64), np.sort(np.asarray(nonmembers, dtype=np.float64))[::-1]
    threshold = b[math.floor(fpr * len(b))]
    hits = int((a > threshold).sum())
    return Interval(hits / len(a), *clopper_pearson(hits, len(a), level))


def quantile(level: float) -> float:
    """Normal quantile of a two-sided interval: 1.96 for 0.95."""
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2))


def bonferroni(level: float, tests: int) -> float:
    """Level of each of several intervals that hold jointly at ``level``."""
    return 1 - (1 - level) / max(1, tests)


def needed(interval: Interval, limit: float, n: int) -> int | None:
    """Samples a side that would decide whether the value is under ``limit``, if the value stays what it is.

    The width shrinks with the square root of n. ``None`` when the value sits on the limit.
    """
    gap, half = abs(limit - interval.value), interval.half
    if gap <= 0 or not math.isfinite(half):
        return None
    return max(n, math.ceil(n * (half / gap) ** 2))


def zero_leak_samples(limit: float, *, level: float = 0.95, tests: int = 1, power: float = 0.9) -> int:
    """Samples a side at which an attack with a true AUC of 0.5 passes ``limit`` with probability ``power``.

    The null variance of an AUC is ``(2 n + 1) / (12 n^2)``; the upper bound ``auc + z * error`` must be ``<= limit``.
    With several attacks this is the power of each; they are strongly correlated.
    """
    from scipy.stats import norm

    error = (limit - 0.5) / (quantile(bonferroni(level, tests)) + float(norm.ppf(power)))
    n = (2 + math.sqrt(4 + 48 * error**2)) / (24 * error**2)
    return math.ceil(n)


def _variance(members: Floats, nonmembers: Floats) -> float:
    return float(members.var(ddof=1) / len(members) + nonmembers.var(ddof=1) / len(nonmembers))


def _floor(parts: Components) -> float:
    return 0.5 / min(len(parts.members), len(parts.nonmembers))


def _wald(value: float, error: float, level: float, lowest: float, highest: float) -> Interval:
    half = quantile(level) * error
    return Interval(value, max(lowest, value - half), min(highest, value + half))


def _wins(members: Any, nonmembers: Any) -> Floats:
    a, b = members[:, None], nonmembers[None, :]
    wins: Floats = (a > b) + 0.5 * (a == b)
    return wins
