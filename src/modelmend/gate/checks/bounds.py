"""Upper ends at the level that the gate asks for, recomputed from counts: what can be checked is not trusted."""

from __future__ import annotations

import math

from modelmend.metrics import paired_drop_counts, upper_bound
from modelmend.records import Measured

_EQUAL = 1e-6


class Unusable(Exception):
    """A measured figure cannot carry a verdict; the message says why."""


def proportion_upper(measured: Measured | None, level: float) -> float:
    """One-sided upper end 0..1 of a proportion at ``level``: from its counts, and never below the reported one.

    A rate that is no whole number of ``n`` (a mean over triggers) counts as the next whole number.

    Raises:
        Unusable: value, upper end or number of samples is missing, out of range, or they contradict each other.
    """
    value, high, n = _figures(measured)
    assert measured is not None
    if not 0 <= value <= 1 or high < value - _EQUAL:
        raise Unusable(f"a rate of {value:.4g} with upper end {high:.4g} is no proportion")
    hits = math.ceil(value * n - _EQUAL * n)
    if measured.counts is not None and (len(measured.counts) != 1 or measured.counts[0] != hits):
        raise Unusable(f"counts {list(measured.counts)} of {n} contradict the rate {value:.4g}")
    return max(high, upper_bound(hits, n, level))


def drop_upper(measured: Measured | None, level: float) -> float:
    """One-sided upper end -1..1 of a paired accuracy drop at ``level``, never below the reported one.

    Raises:
        Unusable: as ``proportion_upper``; also when there are no counts and the reported level is too low, because
            a drop alone does not tell how many samples changed.
    """
    value, high, n = _figures(measured)
    assert measured is not None
    if not -1 <= value <= 1 or high < value - _EQUAL:
        raise Unusable(f"a drop of {value:.4g} with upper end {high:.4g} contradicts itself")
    if measured.counts is None:
        if measured.level < level - _EQUAL:
            raise Unusable(f"measured at level {measured.level:g} and without counts, the gate needs level {level:g}")
        return high
    try:
        lost, won = measured.counts
        drop, upper = paired_drop_counts(lost, won, n, level)
    except ValueError as error:
        raise Unusable(f"counts {list(measured.counts)} are no (lost, won) of {n} samples") from error
    if abs(drop - value) > _EQUAL:
        raise Unusable(f"counts {list(measured.counts)} of {n} contradict the drop {value:.4g}")
    return max(high, upper)


def drop_lower(measured: Measured | None, level: float) -> float:
    """One-sided lower end -1..1 of a paired difference at ``level``, from its counts.

    Raises:
        Unusable: as ``drop_upper``; also without counts.
    """
    drop_upper(measured, level)
    assert measured is not None and measured.n is not None
    if measured.counts is None:
        raise Unusable("the counts behind it are missing")
    more, less = measured.counts
    return -paired_drop_counts(less, more, measured.n, level)[1]


def _figures(measured: Measured | None) -> tuple[float, float, int]:
    if measured is None or measured.value is None:
        raise Unusable("not measured, or not a finite number")
    if measured.high is None:
        raise Unusable("its upper end is missing or not a finite number")
    if measured.n is None or measured.n < 1:
        raise Unusable("the number of samples behind it is missing")
    return measured.value, measured.high, measured.n
