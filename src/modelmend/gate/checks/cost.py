"""Did the repair stay within the time and compute that the policy grants?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from modelmend.gate.checks.base import Case, check, line, within
from modelmend.records import Check, Measured

TITLE = "The repair stays within its cost limits"


@check("cost", TITLE)
def cost(case: Case) -> Iterator[Check]:
    """Sum over the stages, a line for each limit that is set; without a limit the check passes."""
    limits, card = case.policy.cost, case.scorecard
    lines = []
    if limits.max_seconds is not None:
        lines.append(_limit("cost.seconds", "seconds", card.seconds, limits.max_seconds))
    if limits.max_passes is not None:
        lines.append(_limit("cost.passes", "sample passes", card.passes, limits.max_passes))
    yield from lines or [line("cost", TITLE, "pass", "the policy sets no cost limit")]


def _limit(name: str, unit: str, stages: Mapping[str, float], limit: float) -> Check:
    total = (
        math.fsum(stages.values())
        if all(math.isfinite(value) and value >= 0 for value in stages.values())
        else math.nan
    )
    if not stages or not math.isfinite(total):
        return line(name, TITLE, "inconclusive", f"{unit} were not recorded", bound=limit)
    outcome = within(total <= limit)
    return line(
        name, TITLE, outcome, f"{total:.0f} {unit} (at most {limit:.0f})", measured=Measured(value=total), bound=limit
    )
