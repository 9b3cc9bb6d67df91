"""Which classes a repair goes after: those that the evidence accuses, not every class that a trigger can be found for.

A small network is flipped to almost any class by some universal perturbation. To unlearn those, too, costs clean
accuracy and leaves marks of the repair samples, and it removes no backdoor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from modelmend.probe.score import suspicion
from modelmend.probe.trigger import Trigger
from modelmend.records import ClassEvidence, Evidence

ACCUSED = 3.0
"""Robust anomaly (MAD) from which a suspect counts as accused; ours, a common outlier bound."""
CLOSE = 0.6
"""Share of the first suspect's suspicion from which the second may as well be the one."""
DOUBTFUL = 0.45
"""Probability of a backdoor under which nobody but the first suspect is gone after, and nobody counts as accused."""

T = TypeVar("T", bound=Trigger)


def accused(evidence: Evidence) -> tuple[int, ...]:
    """Suspects that stand out in at least one family; where none does, those that may be the one."""
    strongest: dict[int, float] = {}
    for row in evidence.classes:
        strongest[row.target] = max(strongest.get(row.target, 0.0), row.anomaly or 0.0)
    found = tuple(target for target in evidence.suspects if strongest.get(target, 0.0) >= ACCUSED)
    return found or possible(evidence.classes, evidence.suspects, evidence.probability or 0.0)


def possible(classes: Sequence[ClassEvidence], suspects: Sequence[int], probability: float) -> tuple[int, ...]:
    """The first suspect, and the second where it is close and the model is not plainly clean."""
    scores = suspicion(classes)
    pair = tuple(suspects[:2])
    close = len(pair) > 1 and scores.get(pair[1], 0.0) >= CLOSE * scores.get(pair[0], 0.0)
    return pair if close and probability >= DOUBTFUL else pair[:1]


def against(triggers: Sequence[T], targets: Sequence[int]) -> list[T]:
    """Triggers that lead to one of the targets; all of them when none does."""
    chosen = [trigger for trigger in triggers if trigger.target is None or trigger.target in targets]
    return chosen or list(triggers)
