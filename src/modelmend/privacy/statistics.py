"""Statistics of a membership audit: AUC with DeLong's interval, paired differences, TPR at a low FPR, sample sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from modelmend.metrics import clopper_pearson

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Scores = tuple[Floats, Floats]
"""Scores of members ``(m,)`` and of non-members ``(n,)``; larger = more like a member."""

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
class Curve:
    """An AUC and each sample's influence on it; their squares sum to its variance.

    Attributes:
        auc: 0..1.
        influence: ``(m + n,)``, members first: ``(V10 - auc) / m`` and ``(V01 - auc) / n`` of DeLong, in the unbiased
            form.
    """

    auc: float
    influence: Floats


def curve(members: ArrayLike, nonmembers: ArrayLike) -> Curve:
    """AUC and influences from midranks.

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
    value = float(v10.mean())
    influence = [(v10 - value) / math.sqrt(m * (m - 1)), (v01 - value) / math.sqrt(n * (n - 1))]
    return Curve(value, np.concatenate(influence))


def auc_interval(scores: Scores, level: float = 0.95, groups: Integers | None = None) -> Interval:
    """AUC with DeLong's interval, cut to 0..1.

    The standard error is at least ``0.5 / min(m, n)`` (ours): tied or perfectly separated scores have a variance
    of 0, which would claim certainty from a handful of samples.

    Args:
        scores: Of members and non-members.
        level: Of the interval.
        groups: Group of each sample, members first: near-duplicates count as one draw (Obuchowski, Biometrics 53,
            1997). ``None``: all apart.
    """
    found = curve(*scores)
    error = max(_error(found.influence, groups), 0.5 / min(len(scores[0]), len(scores[1])))
    return _wald(found.auc, error, level, 0.0, 1.0)


def adjusted_interval(
    scores: Scores, covariate: Scores, level: float = 0.95, groups: Integers | None = None
) -> Interval:
    """AUC of a randomised comparison, adjusted by a covariate that was fixed before anyone became a member.

    ``AUC(scores) - beta * (AUC(covariate) - 1/2)`` with ``beta = cov / var`` from DeLong's covariance. When the sides
    were drawn at random, the covariate's AUC is 1/2 but for chance, and taking that chance out narrows the interval by
    ``sqrt(1 - r^2)``, ``r`` the correlation of the two AUCs. It is the regression adjustment of randomised
    experiments (Lin, Annals of Applied Statistics 7, 2013); using it on AUCs is ours. Wrong for sides that were not
    drawn at random.

    Args:
        scores: Of members and non-members, on the model after.
        covariate: Of the same samples, from what was known before.
        level: Of the interval.
        groups: As in ``auc_interval``.
    """
    found, other = curve(*scores), curve(*covariate)
    beta = adjustment(found, other, groups)
    error = _error(found.influence - beta * other.influence, groups)
    error = max(error, 0.5 / min(len(scores[0]), len(scores[1])))
    return _wald(found.auc - beta * (other.auc - 0.5), error, level, 0.0, 1.0)


def adjustment(found: Curve, covariate: Curve, groups: Integers | None = None) -> float:
    """``beta`` of ``adjusted_interval``; 0 for a covariate that does not vary."""
    a, b = _grouped(found.influence, groups), _grouped(covariate.influence, groups)
    spread = float(b @ b)
    return float(a @ b) / spread if spread > 0 else 0.0


def paired_difference(before: Scores, after: Scores, level: float, groups: Integers | None = None) -> Interval:
    """AUC after minus AUC before on the same samples, with DeLong's interval for correlated curves."""
    _same(before, after)
    old, new = curve(*before), curve(*after)
    return _wald(new.auc - old.auc, _error(new.influence - old.influence, groups), level, -1.0, 1.0)


def paired_bootstrap(
    before: Scores,
    after: Scores,
    level: float,
    *,
    seed: int,
    draws: int = 1000,
    weight: float = 1.0,
    groups: Integers | None = None,
) -> Interval:
    """``AUC(after) - 1/2 - weight * (AUC(before) - 1/2)`` on the same samples, with a percentile bootstrap interval.

    With the weight 1 that is AUC after minus AUC before; with ``adjustment``'s beta it is the adjusted AUC less 1/2.
    Members and non-members (or their groups) are drawn apart, with replacement; a draw takes a sample's scores
    together. Above 4 million pairs the bootstrap's normal limit answers.

    Args:
        before: Scores of members and non-members before (or a covariate).
        after: Scores of the same samples after.
        level: Of the interval.
        seed: Of the draws.
        draws: Number of draws.
        weight: Of ``before``.
        groups: Group of each sample, members first.
    """
    _same(before, after)
    old, new = curve(*before), curve(*after)
    value = new.auc - 0.5 - weight * (old.auc - 0.5)
    m, n = len(after[0]), len(after[1])
    if m * n > _BOOTSTRAP_PAIRS:
        return _wald(value, _error(new.influence - weight * old.influence, groups), level, -1.0, 1.0)
    rng = np.random.default_rng(seed)
    wins = _wins(*after) - weight * _wins(*before)
    shift = 0.5 * (1 - weight)
    all_groups = np.arange(m + n) if groups is None else np.asarray(groups)
    sides = [np.unique(part, return_inverse=True)[1] for part in (all_groups[:m], all_groups[m:])]
    differences = np.empty(draws)
    for i in range(draws):
        rows, columns = (_draw(rng, index) for index in sides)
        differences[i] = rows @ wins @ columns / (rows.sum() * columns.sum()) - shift
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


def _grouped(influence: Floats, groups: Integers | None) -> Floats:
    if groups is None:
        return influence
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    return np.asarray(np.bincount(index, weights=influence), dtype=np.float64)


def _error(influence: Floats, groups: Integers | None) -> float:
    grouped = _grouped(influence, groups)
    return math.sqrt(float(grouped @ grouped))


def _draw(rng: np.random.Generator, index: Integers) -> Floats:
    """How often each sample is drawn when whole groups, numbered from 0, are drawn with replacement."""
    count = int(index.max()) + 1
    times = np.bincount(rng.integers(0, count, count), minlength=count)
    return np.asarray(times[index], dtype=np.float64)


def _same(before: Scores, after: Scores) -> None:
    if [len(part) for part in before] != [len(part) for part in after]:
        raise ValueError("paired scores differ in number")


def _wald(value: float, error: float, level: float, lowest: float, highest: float) -> Interval:
    half = quantile(level) * error
    return Interval(value, max(lowest, value - half), min(highest, value + half))


def _wins(members: ArrayLike, nonmembers: ArrayLike) -> Floats:
    a, b = np.asarray(members, dtype=np.float64)[:, None], np.asarray(nonmembers, dtype=np.float64)[None, :]
    wins: Floats = (a > b) + 0.5 * (a == b)
    return wins
