"""Which classes a repair goes after: those that the evidence accuses, not every class that a trigger can be found for.

A small network is flipped to almost any class by some universal perturbation. To unlearn those, too, costs clean
accuracy and leaves marks of the repair samples, and it removes no backdoor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from modelmend.probe.score import suspicion
from modelmend.probe.trigger import Trigger
from modelmend.records import DOUBTFUL, ClassEvidence, Evidence

CLOSE = 0.5
"""Share of the first suspect's suspicion from which another may as well be the one."""
T = TypeVar("T", bound=Trigger)


def accused(evidence: Evidence) -> tuple[int, ...]:
    """The classes that a repair goes after."""
    return possible(evidence.classes, evidence.suspects, evidence.probability or 0.0)


def possible(classes: Sequence[ClassEvidence], suspects: Sequence[int], probability: float) -> tuple[int, ...]:
    """The first suspect, and those that are close to it where the model is not plainly clean."""
    scores = suspicion(classes)
    enough = CLOSE * scores.get(suspects[0], 0.0) if suspects else 0.0
    return tuple(
        target
        for place, target in enumerate(suspects)
        if not place or (probability >= DOUBTFUL and scores.get(target, 0.0) >= enough)
    )


def against(triggers: Sequence[T], targets: Sequence[int]) -> list[T]:
    """Triggers that lead to one of the targets; all of them when none does."""
    chosen = [trigger for trigger in triggers if trigger.target is None or trigger.target in targets]
    return chosen or list(triggers)
