"""What a policy can say: every bound that the gate holds a repaired model to, strict and closed."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from modelmend.artifacts import sha256_json
from modelmend.gate.names import SKIPPABLE, nearest

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Level = Annotated[float, Field(ge=0.5, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """Base of all sections: frozen, unknown keys and wrong types refused, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class AccuracyBounds(Section):
    """How much clean accuracy a repair may cost, as shares 0..1 of the gate samples."""

    max_drop: Rate = 0.02
    max_drop_upper: Rate = 0.05
    level: Level = 0.95
    class_min_samples: Count = 20
    class_max_drop: Rate = 0.15

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_drop_upper <= self.max_drop:
            raise ValueError("max_drop_upper must be above max_drop: an upper bound is never below its estimate")
        return self


class BackdoorBounds(Section):
    """How much of a backdoor the probe may still find, as success rates 0..1 of freshly inverted triggers."""

    max_success_upper: Rate = 0.25
    max_excess_upper: Rate = 0.15
    max_floor: Rate = 0.30
    max_estimate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.15
    min_success_before: Rate = 0.50
    level: Level = 0.95
    min_samples: Count = 40
    max_reactivation: Rate | None = None
    probe_verdict: Literal["warn", "enforce"] = "warn"

    @field_validator("max_success_upper", "max_excess_upper")
    @classmethod
    def _reachable(cls, bound: float) -> float:
        if not 0 < bound < 1:
            raise ValueError("must lie between 0 and 1, both excluded: 0 can never be shown and 1 allows everything")
        return bound


class KnownTrigger(Section):
    """Bound on the success of a trigger that the owner has and hands in for the measurement."""

    max_success_upper: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.10


class PrivacyBounds(Section):
    """What the owner states about the data, and how strictly leakage of the original members counts."""

    absolute: Literal["warn", "enforce"] = "warn"
    access: Literal["white-box", "scores", "label-only", "gradients"] = "scores"
    person_classes: bool = False
    min_samples: Count = 200
    sensitivity: Literal["public", "internal", "personal", "special"] = "internal"


class Composite(Section):
    """Weights of the composite index (``composite.py`` has the formula); it never decides anything."""

    backdoor: Weight = 0.40
    accuracy: Weight = 0.25
    privacy: Weight = 0.10
    explainability: Weight = 0.10
    time: Weight = 0.10
    compute: Weight = 0.05
    reference_seconds: Positive = 1800.0
    reference_passes: Positive = 1_000_000.0

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if sum((self.backdoor, self.accuracy, self.privacy, self.explainability, self.time, self.compute)) <= 0:
            raise ValueError("at least one weight must be above 0")
        return self


class RegistryRules(Section):
    """What happens to a version that passed."""

    alias: Annotated[str, Field(max_length=255)] = "candidate"
    require_signature: bool = False

    @field_validator("alias")
    @classmethod
    def _usable(cls, alias: str) -> str:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", alias) or alias == "latest" or re.fullmatch(r"[vV]\d+", alias):
            raise ValueError(
                "an alias starts with a letter, has only letters, digits, - and _, and is not latest or v<number>"
            )
        return alias


class CostLimits(Section):
    """Optional limits on what the whole repair may cost."""

    max_seconds: Positive | None = None
    max_passes: Positive | None = None


class Policy(Section):
    """All that decides between *registered* and *refused*; see ``docs/policy.md``.

    ``allowed_not_run`` lists, by exact name, the checks that may stay unmeasured without blocking.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)] = "default"
    accuracy: AccuracyBounds = AccuracyBounds()
    backdoor: BackdoorBounds = BackdoorBounds()
    known_trigger: KnownTrigger = KnownTrigger()
    privacy: PrivacyBounds = PrivacyBounds()
    fallback: Literal["none", "fine_tune"] = "fine_tune"
    composite: Composite = Composite()
    registry: RegistryRules = RegistryRules()
    cost: CostLimits = CostLimits()
    allowed_not_run: Annotated[tuple[str, ...], Field(strict=False)] = tuple(sorted(SKIPPABLE))

    @field_validator("allowed_not_run")
    @classmethod
    def _known_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in SKIPPABLE:
                raise ValueError(f"{name!r} is not a check that may be skipped{nearest(name, SKIPPABLE)}")
        return tuple(sorted(set(names)))

    @property
    def planned_looks(self) -> int:
        """How often the gate may look at one repair: 2 when a fallback may follow, else 1."""
        return 1 if self.fallback == "none" else 2

    def bound_level(self, level: float, looks: int) -> float:
        """Level of one one-sided bound so that *all* looks together keep ``level`` (Bonferroni).

        ``1 - (1 - level) / max(looks, planned_looks)``: the first look pays too, because a bad model that slips
        through either look is registered.
        """
        return 1 - (1 - level) / max(looks, self.planned_looks)

    def hash(self) -> str:
        """``sha256:<hex>`` over every value in canonical form; comments and key order do not matter."""
        return sha256_json(self.model_dump(mode="json"))
