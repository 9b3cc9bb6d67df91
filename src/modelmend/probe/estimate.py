"""One figure for what is left of a backdoor: the residuals of the families that saw it, weighted by how well they did."""

from __future__ import annotations

from collections.abc import Sequence

from modelmend.records import Evidence, Measured, Residual

SEEN = 0.5
"""Success on the suspect from which a family has seen the backdoor."""


def families_that_saw(residuals: Sequence[Residual], evidence: Evidence) -> list[Residual]:
    """Residuals for the first suspect of the families that had seen a backdoor there, measured before and after."""
    target = evidence.suspects[0] if evidence.backdoor and evidence.suspects else None
    return [
        row
        for row in residuals
        if row.target == target and row.after.value is not None
        if row.before.value is not None and row.before.value >= SEEN
    ]


def attack_success_left(residuals: Sequence[Residual], evidence: Evidence) -> tuple[Measured | None, Measured | None]:
    """Estimated attack success on the suspect and on the repaired model (ours).

    Mean over the families that saw the backdoor, each weighted by its success before the repair: one that never saw it says
    nothing about it, and the largest of many searches is often one for a natural trigger.

    Args:
        residuals: Of all families.
        evidence: What the probe found on the suspect.

    Returns:
        Before and after, without an interval; ``None`` where the probe saw no backdoor, or no family flips half of the samples
        of the suspect.
    """
    saw = families_that_saw(residuals, evidence)
    known = [(row.before.value or 0.0, row.after.value or 0.0) for row in saw]
    was, now = weighted_success([(before, before) for before, _ in known]), weighted_success(known)
    families = "1 family" if len(saw) == 1 else f"{len(saw)} families"
    method = f"mean of {families} by success on the suspect, class {saw[0].target}" if saw else ""
    before, after = (None if value is None else Measured(value=value, method=method) for value in (was, now))
    return before, after


def weighted_success(pairs: Sequence[tuple[float, float]]) -> float | None:
    """``sum(before * after) / sum(before)`` over pairs whose ``before`` is at least ``SEEN``; ``None`` without any."""
    seen = [(before, after) for before, after in pairs if before >= SEEN]
    return sum(before * after for before, after in seen) / sum(before for before, _ in seen) if seen else None
