"""Whose membership is judged, and what one attack measured about them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from modelmend.privacy.statistics import Integers, Interval

Pair = tuple[Tensor, Tensor]
"""Samples ``(N, ...)`` in 0..1 and classes ``(N,)``."""


@dataclass(frozen=True)
class Subject:
    """Whose membership is judged.

    Attributes:
        name: ``members`` (the suspect's training samples) or ``repair`` (the samples the repair used).
        inside: Samples and classes of the members.
        outside: Samples and classes of the non-members.
        random: modelmend itself drew which sample is on which side.
        groups: Near-duplicate group of each sample, members first; ``None``: all apart.
    """

    name: str
    inside: Pair
    outside: Pair
    random: bool
    groups: Integers | None = None

    @property
    def absolute(self) -> bool:
        """About the original members."""
        return self.name == "members"

    @property
    def n(self) -> int:
        """Samples of the smaller side."""
        return min(len(self.inside[1]), len(self.outside[1]))


@dataclass(frozen=True)
class Line:
    """What one attack measured on one subject.

    Attributes:
        attack: Its name.
        level: Of the intervals.
        auc: On the repaired model, as the gate judges it: adjusted where the sides were drawn at random.
        plain: The same without adjustment.
        before: On the suspect; ``None`` for an attack that needs both models.
        change: After minus before, as the gate judges it.
        low_fpr: TPR at 1 % FPR on the repaired model.
    """

    attack: str
    level: float
    auc: Interval
    plain: Interval
    before: Interval | None
    change: Interval | None
    low_fpr: Interval
