"""One figure for what is left of a backdoor: the residuals of all families, weighted by what they saw before."""

from __future__ import annotations

from collections.abc import Sequence

from modelmend.records import Evidence, Measured, Residual

SEEN = 0.5
"""Success on the suspect from which a family has seen the backdoor."""


def attack_success_left(residuals: Sequence[Residual], evidence: Evidence) -> tuple[Measured | None, Measured | None]:
    """Estimated attack success on the suspect and on the repaired model (ours): what the gate bounds is each residual.

    Mean over the families that looked at the first suspect, each weighted by its success before the repair: a family that never
    saw the backdoor says nothing about it, and the largest of many searches is often one for a natural trigger.

    Args:
        residuals: Of all families.
        evidence: What the probe found on the suspect.

    Returns:
        Before and after, without an interval; ``None`` where the probe saw no backdoor, or no family flips half of the samples
        of the suspect.
    """
    target = evidence.suspects[0] if evidence.backdoor and evidence.suspects else None
    found = [(row.before.value, row.after.value) for row in residuals if row.target == target]
    known = [(before, after) for before, after in found if before is not None and after is not None]
    was, now = weighted_success([(before, before) for before, _ in known]), weighted_success(known)
    method = f"mean of {len(known)} families by success on the suspect, class {target}"
    before, after = (None if value is None else Measured(value=value, method=method) for value in (was, now))
    return before, after


def weighted_success(pairs: Sequence[tuple[float, float]]) -> float | None:
    """``sum(before * after) / sum(before)``; ``None`` where no family flips half of the samples of the suspect."""
    if max((before for before, _ in pairs), default=0.0) < SEEN:
        return None
    return sum(before * after for before, after in pairs) / sum(before for before, _ in pairs)
