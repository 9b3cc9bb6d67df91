"""The audit in words: what leaks to whom, how bad that is for this data, and what to do first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelmend.privacy.config import PrivacyConfig
from modelmend.records import PrivacyFinding

_WHO = {
    "label-only": "Anybody who may ask the model for labels",
    "scores": "Anybody who may ask the model for its scores",
    "white-box": "Anybody who holds the model file",
    "gradients": "Anybody who sees gradients of its training",
}
_WEIGHT = {
    "public": "The data is public: this is a matter of hygiene.",
    "internal": "The data is internal: knowing who is in it can embarrass, seldom harm.",
    "personal": "The data is personal: membership itself can be personal data. Involve your data protection officer.",
    "special": "The data is of a special category (health, biometrics, belief): membership alone may reveal it.",
}
_WHOSE = {"members": "the samples that the suspect was trained on", "repair": "the samples that the repair used"}


def words(
    findings: Sequence[PrivacyFinding], defences: Sequence[dict[str, Any]], config: PrivacyConfig, *, screening: bool
) -> tuple[str, ...]:
    """Sentences for the report, the most important first (P5)."""
    said = [_leak(f, config) for f in findings if f.gate == "G1"]
    said += [_change(f) for f in findings if f.gate == "G3" and f.outcome != "not_run"]
    said += [_classes(f) for f in findings if f.gate in ("G5", "G6") and f.outcome != "not_run"]
    said.append(_WEIGHT[config.sensitivity])
    said.append(_first_step(findings, defences))
    said.append(
        "Access control and query logs are the other two layers: let only named services call the model, and watch the "
        "log for many near-identical or random queries for one class."
    )
    if screening:
        said.append(
            "This was a screening: no reference models were trained, and an attacker who trains some finds more at low "
            "false positive rates."
        )
    return tuple(said)


def _leak(found: PrivacyFinding, config: PrivacyConfig) -> str:
    whose = _WHOSE.get(found.subject, found.subject)
    if found.outcome == "not_run":
        return f"Whether {whose} can be recognised was not measured: {found.reason}."
    value, high = found.measured.value or 0.0, found.measured.high or 1.0
    share = f"{100 * value:.0f} of 100 pairs right (at most {100 * high:.0f}; guessing gets 50)"
    can = {
        "pass": "cannot tell",
        "fail": "can tell",
        "warn": "can tell to some degree",
        "inconclusive": "may or may not be able to tell",
    }[found.outcome]
    return f"{_WHO[config.access]} {can} {whose} from samples it never saw: {share}."


def _change(found: PrivacyFinding) -> str:
    whose = _WHOSE.get(found.subject, found.subject)
    if found.outcome == "pass":
        return f"The repair does not make {whose} easier to recognise."
    value, low = found.measured.value or 0.0, found.measured.low or 0.0
    if low > 0:
        return f"The repair makes {whose} easier to recognise, by {100 * value:.0f} points."
    return f"It is not shown that the repair leaves {whose} as hard to recognise as before."


def _classes(found: PrivacyFinding) -> str:
    what = "A class" if found.gate == "G5" else "A single training image"
    if found.outcome == "pass":
        return f"{what} cannot be reconstructed from the model with the attacks that were run."
    return f"{what} may be reconstructed from the model: {found.reason}."


def _first_step(findings: Sequence[PrivacyFinding], defences: Sequence[dict[str, Any]]) -> str:
    outcomes = {(f.gate, f.subject): f.outcome for f in findings}
    if outcomes.get(("G1", "repair")) == "fail" or outcomes.get(("G3", "repair")) == "fail":
        return (
            "First: repair again with fewer epochs or more samples; augmentation and weight decay in the repair step "
            "lower its leakage without cost in accuracy."
        )
    if "inconclusive" in (outcomes.get(("G1", "repair")), outcomes.get(("G0", "repair"))):
        wanted = max((f.needed or 0 for f in findings if f.subject == "repair"), default=0)
        return (
            f"First: give more clean samples{f', about {wanted} a side' if wanted else ''}, so that it can be decided."
        )
    if outcomes.get(("G1", "members")) in ("fail", "warn"):
        useful = next((row["defence"] for row in defences if row.get("qualifies")), None)
        if useful:
            return f"First: serve the model with {useful}; it helps even against an attacker who adapts."
        return (
            "First: restrict who may query the model; output restriction does not help here. Only retraining with "
            "stronger regularisation or differential privacy takes the leak out of the model."
        )
    return "First: nothing urgent. Repeat the audit when the model or its access changes."
