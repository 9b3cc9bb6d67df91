"""Are there enough gate samples for a verdict?"""

from __future__ import annotations

from collections.abc import Iterator

from modelmend.gate.checks.base import Case, check, line
from modelmend.gate.power import needed
from modelmend.records import Check, Measured

TITLE = "Enough gate samples for a verdict"


@check("power", TITLE)
def power(case: Case) -> Iterator[Check]:
    """``too few gate samples (have n, need m)`` below the number at which a flawless repair would pass."""
    have, need = case.scorecard.gate_samples, needed(case.policy, case.looks)
    measured = Measured(value=have, n=have)
    if have < need:
        reason = f"too few gate samples (have {have}, need {need})"
        yield line("power", TITLE, "fail", reason, measured=measured, bound=need)
    else:
        yield line("power", TITLE, "pass", f"{have} gate samples, {need} needed", measured=measured, bound=need)
