"""One figure for what is left of a backdoor: the residuals of the families that saw it, weighted by how well they did."""

from __future__ import annotations

from collections.abc import Sequence

from modelmend.records import Evidence, Measured, Residual

SEEN = 0.5
"""Success on the suspect from which a family has seen the backdoor."""


def families_that_saw(residuals: Sequence[Residual], target: int, least: float = SEEN) -> list[Residual]:
    """Residuals for a class of the families that flipped at least this share of the suspect's samples to it."""
    return [row for row in residuals if row.target == target and (row.before.value or 0.0) >= least]


def attack_success_left(residuals: Sequence[Residual], evidence: Evidence) -> tuple[Measured | None, Measured | None]:
    """Estimated attack success for the first suspect, on the suspect and on the repaired model (ours).

    Args:
        residuals: Of all families.
        evidence: What the probe found on the suspect.

    Returns:
        ``weighted_success`` before and after, without an interval; ``None`` where the probe saw no backdoor, or no family
        flips half of the samples of the suspect.
    """
    if not evidence.suspected or not evidence.suspects:
        return None, None
    target = evidence.suspects[0]
    saw = [row for row in families_that_saw(residuals, target) if row.after.value is not None]
    known = [(row.before.value or 0.0, row.after.value or 0.0) for row in saw]
    was, now = weighted_success([(before, before) for before, _ in known]), weighted_success(known)
    method = f"{describe(saw)}, class {target}"
    before, after = (None if value is None else Measured(value=value, method=method) for value in (was, now))
    return before, after


def beyond_nature(row: Residual, least: int = 1) -> float:
    """Success on the repaired model, less what triggers of the same size reach in its other classes: ``(p - c) / (1 - c)``.

    Abbott's formula for a natural response (J. Econ. Entomol. 18, 1925): of the samples that would not go to an ordinary
    class anyway, the share that goes to this one. A fragile model hides a backdoor from this figure: alone it clears nothing.

    Args:
        row: Of one family and class. ``c`` is the median of its floor; it is 0 where none was measured, where its figures
            contradict themselves, and where it is 1.
        least: Fewest samples that a floor is measured on.
    """
    success, floor = row.after.value or 0.0, row.floor
    if floor is None or floor.value is None or floor.high is None or (floor.n or 0) < max(1, least):
        return success
    if not 0 <= floor.value <= floor.high <= 1 or floor.value == 1:
        return success
    return max(0.0, (success - floor.value) / (1 - floor.value))


def describe(saw: Sequence[Residual]) -> str:
    """What the estimate is a mean of, in words."""
    return f"mean of {'1 family' if len(saw) == 1 else f'{len(saw)} families'} by success on the suspect"


def weighted_success(pairs: Sequence[tuple[float, float]]) -> float | None:
    """``sum(before * after) / sum(before)`` over families that saw the backdoor; ``None`` where nothing worked before (ours).

    A family that never saw the backdoor says nothing about it, and the largest of many searches is often one for a natural
    trigger.
    """
    total = sum(before for before, _ in pairs)
    return sum(before * after for before, after in pairs) / total if total > 0 else None
