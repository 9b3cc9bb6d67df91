"""From a number with an interval to an outcome: pass needs proof, fail needs proof, all else is inconclusive."""

from __future__ import annotations

from typing import Literal

from modelmend.privacy.statistics import Interval, needed
from modelmend.records import Measured, PrivacyFinding

Outcome = Literal["pass", "warn", "fail", "inconclusive", "not_run"]


def judge(interval: Interval, limit: float, fail_above: float) -> Outcome:
    """``pass`` if the upper end is at most the limit, ``fail`` if the lower end is over the second limit.

    Between the two limits lies the band of ``warn``: the whole interval has to be inside. All else is
    ``inconclusive``.

    Args:
        interval: The measurement.
        limit: First limit.
        fail_above: Second limit, at least the first; equal to it when there is no warning band.
    """
    if interval.high <= limit:
        return "pass"
    if interval.low > fail_above:
        return "fail"
    if interval.low > limit and interval.high <= fail_above:
        return "warn"
    return "inconclusive"


def finding(
    gate: str,
    subject: str,
    interval: Interval,
    *,
    limit: float,
    fail_above: float | None,
    n: int,
    level: float,
    method: str,
    text: str,
    absolute: bool,
    forced: Outcome | None = None,
) -> PrivacyFinding:
    """A finding from a measurement.

    Args:
        gate: ``G0`` .. ``G8``.
        subject: ``members``, ``repair``, ``classes``, ...
        interval: The measurement.
        limit: First limit.
        fail_above: Second limit, ``None`` when there is no warning band.
        n: Samples of the smaller side.
        level: Of the interval.
        method: How it was measured.
        text: What the number is, in words.
        absolute: About the original members.
        forced: Outcome in place of the judged one.
    """
    outcome = forced or judge(interval, limit, limit if fail_above is None else fail_above)
    enough = None
    reason = f"{text}: {interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f}), limit {limit:.2f}"
    if outcome in ("inconclusive", "fail") and interval.low <= limit < interval.high:
        enough = needed(interval, limit, n)
        if enough is not None and enough > n:
            reason += f"; {n} samples a side do not decide it, about {enough} would if the value stays"
        else:
            enough = None
    return PrivacyFinding(
        gate=gate,
        subject=subject,
        measured=Measured(value=interval.value, low=interval.low, high=interval.high, n=n, level=level, method=method),
        limit=limit,
        fail_above=fail_above,
        outcome=outcome,
        absolute=absolute,
        reason=reason,
        needed=enough,
    )


def not_run(
    gate: str, subject: str, reason: str, *, limit: float | None = None, absolute: bool, needs: int | None = None
) -> PrivacyFinding:
    """A finding that says why nothing was measured."""
    return PrivacyFinding(
        gate=gate,
        subject=subject,
        measured=Measured(method="not run"),
        limit=limit,
        outcome="not_run",
        absolute=absolute,
        reason=reason,
        needed=needs,
    )
