"""Upper ends at the level that the gate asks for, recomputed from counts: what can be checked is not trusted."""

from __future__ import annotations

from modelmend.metrics import paired_drop_counts, upper_bound
from modelmend.records import Measured

_EQUAL = 1e-6


class Unusable(Exception):  # noqa: N818 - a finding about evidence, reported as a line and never raised to a user
    """A measured figure cannot carry a verdict; the message says why."""


def proportion_upper(measured: Measured | None, level: float) -> float:
    """One-sided upper end 0..1 of a proportion at ``level``, never below the reported one.

    From ``counts`` if given, else from ``value * n`` if that is a whole number, else the reported ``high`` if its
    level is at least ``level``.

    Raises:
        Unusable: value, upper end or number of samples is missing, out of range, or they contradict each other.
    """
    value, high, n = _figures(measured)
    assert measured is not None
    if not 0 <= value <= 1 or high < value - _EQUAL:
        raise Unusable(f"a rate of {value:.4g} with upper end {high:.4g} is no proportion")
    hits = value * n
    if measured.counts is not None:
        if len(measured.counts) != 1 or abs(measured.counts[0] - hits) > _EQUAL * n:
            raise Unusable(f"counts {list(measured.counts)} of {n} contradict the rate {value:.4g}")
    elif abs(hits - round(hits)) > _EQUAL * n:
        if measured.level < level:
            raise Unusable(f"measured at level {measured.level:g}, the gate needs {level:g}")
        return high
    return max(high, upper_bound(round(hits), n, level))


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


def _figures(measured: Measured | None) -> tuple[float, float, int]:
    if measured is None or measured.value is None:
        raise Unusable("not measured, or not a finite number")
    if measured.high is None:
        raise Unusable("its upper end is missing or not a finite number")
    if measured.n is None or measured.n < 1:
        raise Unusable("the number of samples behind it is missing")
    return measured.value, measured.high, measured.n
