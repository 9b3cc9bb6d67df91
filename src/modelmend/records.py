"""What one room hands to the next: small validated records, each the content of a JSON file inside an artifact."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from modelmend.artifacts import write_json
from modelmend.errors import ArtifactError


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Figure = Annotated[float | None, BeforeValidator(_finite_or_none)]
"""A finite number, or ``None`` for *not measured*; NaN and infinities become ``None`` (and so fail every gate)."""

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """Base of all records: frozen, unknown keys refused, JSON without NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    def write(self, path: Path) -> None:
        """Write as JSON."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read from JSON; raises ``ArtifactError`` naming the file and the field."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ArtifactError(f"cannot read: {error.strerror}", where=path) from error
        except ValidationError as error:
            first = error.errors()[0]
            raise ArtifactError(first["msg"], where=path, field=".".join(map(str, first["loc"]))) from error


class Preprocessing(Record):
    """How stored samples become the model's input: ``((x * (hi - lo) + lo) - mean) / std`` with x in 0..1.

    ``kind="raw"`` feeds samples as they are (tables, signals): no scaling, ``bounds`` come from the data.
    """

    kind: Literal["image", "raw"] = "image"
    input_range: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @field_validator("mean", "std", "input_range")
    @classmethod
    def _finite(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(math.isfinite(value) for value in values):
            raise ValueError("mean, std and input_range must be finite numbers")
        return values

    @field_validator("std")
    @classmethod
    def _positive(cls, std: tuple[float, ...]) -> tuple[float, ...]:
        if not std or min(std) <= 0:
            raise ValueError("std must be positive")
        return std

    @field_validator("input_range")
    @classmethod
    def _ordered(cls, pair: tuple[float, float]) -> tuple[float, float]:
        if not pair[0] < pair[1]:
            raise ValueError("input_range must be (low, high) with low < high")
        return pair


class Measured(Record):
    """A number with how it was measured; ``value=None`` means that it could not be measured.

    ``counts`` lets the gate recompute the bound at its own level: ``(successes,)`` of a proportion of ``n``,
    ``(lost, won)`` of a paired accuracy drop over ``n`` samples.
    """

    value: Figure = None
    low: Figure = None
    high: Figure = None
    n: int | None = None
    level: float = 0.95
    method: str = ""
    counts: tuple[int, ...] | None = None


class SuspectInfo(Record):
    """``suspect.json``: what was imported."""

    source: str
    format: str
    content_hash: str
    file_hash: str
    input_shape: tuple[int, ...]
    num_classes: int
    dtype: str
    parameters: int
    macs: int | None = None
    outputs_probabilities: bool = False
    has_batch_norm: bool = False
    prunable_groups: int | None = None
    preprocessing: Preprocessing = Preprocessing()
    findings: tuple[dict[str, Any], ...] = ()


class ClassEvidence(Record):
    """What one trigger family found for one class."""

    family: str
    target: int
    success: Figure = Field(description="flip rate on held-out clean samples not of the class, 0..1")
    strength: Figure = Field(description="family's own score; larger = more like a backdoor")
    anomaly: Figure = Field(description="robust z-score of strength over the classes (MAD)")
    size: Figure = Field(default=None, description="family's own size of the perturbation")


DOUBTFUL = 0.33
"""Probability of a backdoor under which a model is taken for clean: nothing is edited, and the probe accuses no class.

Of the models that the probe was calibrated on, each judged by a fit without its attack, clean ones end at 0.31 and
infected ones begin at 0.35.
"""


class Evidence(Record):
    """``evidence.json``: the probe's answer."""

    mode: Literal["screen", "full"]
    backdoor: bool
    probability: Figure
    calibrated: bool = Field(default=False, description="the probability comes from a calibration on a zoo of models")
    suspects: tuple[int, ...]
    families: tuple[str, ...]
    kept_family: str
    classes: tuple[ClassEvidence, ...]
    triggers: tuple[dict[str, Any], ...] = ()
    seed: int
    seconds: float
    passes: float

    @property
    def suspected(self) -> bool:
        """Whether the probe saw a backdoor, or is in doubt: what is repaired, and judged."""
        return self.backdoor or (self.probability or 0.0) >= DOUBTFUL


class Residual(Record):
    """How much of the backdoor one family still finds after the repair, inverted from scratch.

    ``before`` and ``after`` are flip rates of triggers of one and the same size, ``budget``, which is chosen so that
    ordinary classes of the suspect are seldom reached. ``floor`` is what such triggers do to the other classes of the
    repaired model; ``excess`` is ``after`` less the floor's ``high``, at least 0.
    """

    family: str
    role: Literal["used", "kept"]
    target: int
    before: Measured
    after: Measured
    floor: Measured | None = None
    excess: Figure = None
    budget: Figure = None


class ClassAccuracy(Record):
    """Accuracy of one class on the gate split."""

    label: int
    n: int
    before: Figure
    after: Figure


class Scorecard(Record):
    """``scorecard.json``: everything measured on the repaired model, on the gate split only."""

    suspect_hash: str
    repaired_hash: str
    gate_samples: int
    domain: Literal["match", "mismatch", "inconclusive"] | None = Field(
        default=None, description="whether the samples represent the model's domain; None: not measured"
    )
    accuracy_before: Measured
    accuracy_after: Measured
    accuracy_drop: Measured
    class_accuracy: tuple[ClassAccuracy, ...] = ()
    probe_before: Evidence | None = None
    probe_after: Evidence | None = None
    residuals: tuple[Residual, ...] = ()
    attack_before: Measured | None = Field(default=None, description="estimated attack success, as ``attack_after``")
    attack_after: Measured | None = Field(
        default=None, description="of the first suspect: mean residual of the families that saw it, by success before"
    )
    known_trigger_before: Measured | None = None
    known_trigger_after: Measured | None = None
    reactivation: Measured | None = None
    groups_cut: int = 0
    groups_total: int = 0
    parameters_before: int | None = None
    parameters_after: int | None = None
    macs_before: int | None = None
    macs_after: int | None = None
    edited_relative_norm: Figure = None
    batch_norm: str = "frozen"
    explainability: Measured | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    passes: dict[str, float] = Field(default_factory=dict)
    looks: int = 1


class PrivacyFinding(Record):
    """One gate G0..G8 of the privacy audit."""

    gate: str
    subject: str
    measured: Measured
    limit: Figure
    fail_above: Figure = None
    outcome: Literal["pass", "warn", "fail", "inconclusive", "not_run"]
    absolute: bool = Field(description="about the original members (a warning by default), not about the repair")
    reason: str
    needed: int | None = None


class PrivacyReport(Record):
    """``privacy.json``: what the audit measured, before and after the repair."""

    access: str
    screening: bool = Field(description="true when no reference models were trained")
    members: str
    findings: tuple[PrivacyFinding, ...]
    attacks: tuple[dict[str, Any], ...] = ()
    defences: tuple[dict[str, Any], ...] = ()
    words: tuple[str, ...] = ()


class Check(Record):
    """One line of the decision."""

    name: str
    title: str
    value: Figure = None
    low: Figure = None
    high: Figure = None
    bound: Figure = None
    n: int | None = None
    outcome: Literal["pass", "fail", "warn", "inconclusive", "not_run"]
    blocks: bool = Field(description="whether this outcome keeps the model out of the registry")
    reason: str


Verdict = Literal["pass", "refuse", "fallback"]


class Decision(Record):
    """``decision.json``: the verdict and all it rests on."""

    verdict: Verdict
    reasons: tuple[str, ...]
    checks: tuple[Check, ...]
    not_run: tuple[str, ...] = ()
    composite: Figure = None
    composite_formula: str = ""
    suspect_hash: str
    repaired_hash: str
    samples_hash: str
    policy_hash: str
    policy_name: str
    code_version: str
    seed: int
    looks: int = 1


class Registration(Record):
    """``registration.json``: what happened at the registry."""

    status: Literal["registered", "existing", "refused", "unnamed"]
    name: str | None = None
    version: str | None = None
    alias: str | None = None
    tracking_uri: str | None = None
    registration_key: str | None = None
    decision_hash: str | None = None
    reason: str = ""
