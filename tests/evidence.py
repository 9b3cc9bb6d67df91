"""Evidence of a good repair, to be spoiled by tests of the gate, the registry and the report."""

from __future__ import annotations

from typing import Any

from modelmend.metrics import paired_drop_counts, upper_bound
from modelmend.records import (
    ClassAccuracy,
    ClassEvidence,
    Evidence,
    Measured,
    PrivacyFinding,
    PrivacyReport,
    Residual,
    Scorecard,
)


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


def rate(hits: int, n: int) -> Measured:
    return Measured(value=hits / n, low=0.0, high=upper_bound(hits, n), n=n, counts=(hits,))


def drop(lost: int, won: int, n: int) -> Measured:
    value, high = paired_drop_counts(lost, won, n)
    return Measured(value=value, high=high, n=n, counts=(lost, won))


def evidence(*, backdoor: bool, success: float) -> Evidence:
    rows = tuple(
        ClassEvidence(family=family, target=label, success=success if label == 3 else 0.04, strength=1.0, anomaly=0.2)
        for family in ("patch", "additive")
        for label in range(4)
    )
    return Evidence(
        mode="full",
        backdoor=backdoor,
        probability=success,
        suspects=(3,) if backdoor else (),
        families=("patch",),
        kept_family="additive",
        classes=rows,
        seed=0,
        seconds=2.0,
        passes=1000.0,
    )


def residual(role: str = "used", family: str = "patch", hits: int = 8, n: int = 360, **more: Any) -> Residual:
    return Residual(family=family, role=role, target=3, before=rate(int(0.97 * n), n), after=rate(hits, n), **more)


def good_card(**changes: Any) -> Scorecard:
    n, lost, won = 400, 3, 1
    card = Scorecard(
        domain="match",
        suspect_hash=digest("a"),
        repaired_hash=digest("b"),
        gate_samples=n,
        accuracy_before=rate(380, n),
        accuracy_after=rate(380 - lost + won, n),
        accuracy_drop=drop(lost, won, n),
        class_accuracy=tuple(ClassAccuracy(label=k, n=100, before=0.95, after=0.945) for k in range(4)),
        probe_before=evidence(backdoor=True, success=0.97),
        probe_after=evidence(backdoor=False, success=0.05),
        residuals=(residual(), residual("kept", "additive")),
        explainability=Measured(value=0.7, n=10),
        seconds={"prune_neurons": 30.0, "edit_weights": 5.0},
        passes={"prune_neurons": 200_000.0, "edit_weights": 30_000.0},
    )
    return card.model_copy(update=changes)


def finding(gate: str, subject: str, **changes: Any) -> PrivacyFinding:
    base = PrivacyFinding(
        gate=gate,
        subject=subject,
        measured=Measured(value=0.02, low=0.0, high=0.04, n=250),
        limit=0.05,
        outcome="pass",
        absolute=False,
        reason="within the limit",
    )
    return base.model_copy(update=changes)


def good_privacy(**changes: Any) -> PrivacyReport:
    report = PrivacyReport(
        access="gradients",
        screening=True,
        members="repair split",
        findings=(
            finding("G0", "repair"),
            finding("G1", "repair"),
            finding("G3", "repair"),
            finding("G1", "members", absolute=True),
        ),
        words=("Somebody who sees scores learns little about who was in the repair samples.",),
    )
    return report.model_copy(update=changes)
