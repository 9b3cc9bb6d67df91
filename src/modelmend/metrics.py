"""One definition of every figure: accuracy, attack success, robust accuracy, DER, their intervals, sample passes."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_passes = 0.0


def count_passes(samples: int, *, backward: bool = False) -> None:
    """Add to the sample passes of this process: forward = 1 a sample, forward and backward = 3."""
    global _passes
    _passes += samples * (3 if backward else 1)


def sample_passes() -> float:
    """Sample passes counted in this process so far."""
    return _passes


class Meter:
    """What something has cost since it was made: ``seconds`` of wall time and ``passes`` of samples."""

    def __init__(self) -> None:
        self._started, self._spent = time.monotonic(), sample_passes()

    @property
    def seconds(self) -> float:
        """Wall seconds so far."""
        return time.monotonic() - self._started

    @property
    def passes(self) -> float:
        """Sample passes so far."""
        return sample_passes() - self._spent


def accuracy(predicted: ArrayLike, labels: ArrayLike) -> float:
    """ACC: share of samples whose top-1 class is the label, 0..1; NaN when there are none."""
    hits = _array(predicted) == _array(labels)
    return float(hits.mean()) if hits.size else math.nan


def attack_success(predicted: ArrayLike, labels: ArrayLike, targets: ArrayLike | int) -> float:
    """ASR: share of triggered samples *not truly of the target class* that get the attacker's class, 0..1.

    Args:
        predicted: Top-1 class of each triggered sample.
        labels: True class of each.
        targets: Attacker's class, one for all or one a sample (all-to-all: ``t(y) = y + 1 mod classes``).

    Returns:
        The rate; NaN when every sample is of its target class.
    """
    p, y = _array(predicted), _array(labels)
    t = _array(targets) * (y * 0 + 1)
    counted = y != t
    return float((p[counted] == t[counted]).mean()) if counted.any() else math.nan


def robust_accuracy(predicted: ArrayLike, labels: ArrayLike) -> float:
    """RA: share of triggered samples that get their true class, 0..1."""
    return accuracy(predicted, labels)


def der(acc_before: float, acc_after: float, asr_before: float, asr_after: float) -> float:
    """Defence effectiveness rating: ``(max(0, dASR) - max(0, dACC) + 1) / 2``, all rates 0..1."""
    return (max(0.0, asr_before - asr_after) - max(0.0, acc_before - acc_after) + 1) / 2


def relative_der(acc_before: float, acc_after: float, asr_before: float, asr_after: float) -> float:
    """rDER: DER over its ceiling ``(1 + asr_before) / 2``, which depends on how strong the attack was."""
    return der(acc_before, acc_after, asr_before, asr_after) / ((1 + asr_before) / 2)


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided interval of a proportion; ``(0, 1)`` when ``n`` is 0."""
    from scipy.stats import beta

    if not 0 <= successes <= n:
        raise ValueError(f"successes {successes} outside 0..{n}")
    if n == 0:
        return 0.0, 1.0
    alpha = 1 - level
    low = 0.0 if successes == 0 else float(beta.ppf(alpha / 2, successes, n - successes + 1))
    high = 1.0 if successes == n else float(beta.ppf(1 - alpha / 2, successes + 1, n - successes))
    return low, high


def upper_bound(successes: int, n: int, level: float = 0.95) -> float:
    """Exact one-sided upper bound of a proportion (Clopper-Pearson); 1 when ``n`` is 0."""
    from scipy.stats import beta

    if n == 0 or successes >= n:
        return 1.0
    return float(beta.ppf(level, successes + 1, n - successes))


def auc(members: ArrayLike, others: ArrayLike) -> float:
    """Area under the ROC curve: how often a member's score is the larger one, ties counted half; 0..1.

    Args:
        members: Finite scores ``(m,)``.
        others: Those of the other side ``(n,)``.

    Raises:
        ValueError: a side is empty.
    """
    import numpy as np
    from scipy.stats import rankdata

    a, b = _array(members), _array(others)
    if not len(a) or not len(b):
        raise ValueError("an AUC needs a score on either side")
    ranks = rankdata(np.concatenate([a, b]))[: len(a)]
    return float((ranks.mean() - (len(a) + 1) / 2) / len(b))


def paired_drop(before: Sequence[bool], after: Sequence[bool], level: float = 0.95) -> tuple[float, float]:
    """Accuracy drop on the same samples and its one-sided upper bound.

    The drop is ``(b - c) / n`` with ``b`` samples that only *before* gets right and ``c`` only *after*. The bound is the
    score bound for a difference of paired proportions (Tango, Statistics in Medicine 17, 1998): the largest drop that a
    test at ``1 - level`` does not reject.

    Args:
        before: Correct or not, a sample.
        after: The same samples after the repair.
        level: Of the bound, such as 0.95.

    Returns:
        ``(drop, upper)``, both -1..1; ``(nan, 1.0)`` when there are no samples.
    """
    b, a = _array(before).astype(bool), _array(after).astype(bool)
    if b.shape != a.shape:
        raise ValueError(f"paired samples differ in number: {b.shape} and {a.shape}")
    n = int(b.size)
    return paired_drop_counts(int((b & ~a).sum()), int((~b & a).sum()), n, level)


def paired_drop_counts(lost: int, won: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """``paired_drop`` from its counts: ``lost`` samples that only *before* gets right, ``won`` that only *after* does.

    Raises:
        ValueError: The counts do not fit into ``n``.
    """
    if min(lost, won) < 0 or lost + won > n:
        raise ValueError(f"{lost} lost and {won} won samples do not fit into {n}")
    if n == 0:
        return math.nan, 1.0
    if lost == n:
        return 1.0, 1.0
    from scipy.optimize import brentq
    from scipy.stats import norm

    quantile = float(norm.ppf(level))
    upper = brentq(lambda drop: _score(lost, won, n, drop) + quantile, (lost - won) / n, 1.0)
    return (lost - won) / n, float(upper)


def _score(lost: int, won: int, n: int, drop: float) -> float:
    """Tango's statistic: how many standard errors the measured drop is above ``drop``; falls in ``drop``."""
    linear = (2 * n - lost + won) * drop - lost - won
    constant = -won * drop * (1 - drop)
    swapped = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)  # of won, as likely as can be
    variance = n * (2 * swapped + drop * (1 - drop))
    distance = lost - won - n * drop
    if variance <= 0:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _array(values: Any) -> NDArray[Any]:
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)
