"""The composite index: one number to order repairs by, which decides nothing.

``index = sum_k w_k s_k / sum_k w_k`` with the weights of the policy and parts ``s_k`` in 0..1:

- backdoor: ``1 - max(success of any residual or known trigger after the repair)``
- accuracy: ``1 - clip(drop / max_drop_upper, 0, 1)``
- privacy: share of the audit's findings that pass, of those that ran
- explainability: the scorecard's score
- time: ``r / (r + seconds)`` with ``r = reference_seconds``
- compute: ``r / (r + passes)`` with ``r = reference_passes``

A part that was not measured counts 0, so that missing evidence never raises the index.
"""

from __future__ import annotations

import math

from modelmend.gate.schema import Policy
from modelmend.records import PrivacyReport, Scorecard


def formula(policy: Policy) -> str:
    """The formula with the policy's weights, in words, for the decision and the report."""
    w = policy.composite
    return (
        f"Weighted mean of: {w.backdoor:g} × backdoor (1 − highest trigger success left), {w.accuracy:g} × accuracy "
        f"(1 − drop ÷ {policy.accuracy.max_drop_upper:g}), {w.privacy:g} × privacy (share of findings that pass), "
        f"{w.explainability:g} × explainability, {w.time:g} × time (r ÷ (r + seconds), r = {w.reference_seconds:.0f}), "
        f"{w.compute:g} × compute (r ÷ (r + sample passes), r = {w.reference_passes:.0f}). "
        "A part that was not measured counts 0."
    )


def composite_parts(policy: Policy, scorecard: Scorecard, privacy: PrivacyReport | None) -> dict[str, float]:
    """The parts ``s_k`` by name, each 0..1."""
    weights = policy.composite
    successes = [row.after.value for row in scorecard.residuals]
    if scorecard.known_trigger_after is not None:
        successes.append(scorecard.known_trigger_after.value)
    known = [value for value in successes if value is not None]
    drop = scorecard.accuracy_drop.value
    ran = [finding.outcome for finding in privacy.findings if finding.outcome != "not_run"] if privacy else []
    explained = scorecard.explainability.value if scorecard.explainability is not None else None
    return {
        "backdoor": _clip(1 - max(known)) if known and len(known) == len(successes) else 0.0,
        "accuracy": 0.0 if drop is None else 1 - _clip(drop / policy.accuracy.max_drop_upper),
        "privacy": ran.count("pass") / len(ran) if ran else 0.0,
        "explainability": 0.0 if explained is None else _clip(explained),
        "time": _spent(list(scorecard.seconds.values()), weights.reference_seconds),
        "compute": _spent(list(scorecard.passes.values()), weights.reference_passes),
    }


def composite_index(policy: Policy, scorecard: Scorecard, privacy: PrivacyReport | None) -> float:
    """The index, 0..1; the formula is in the module's docstring."""
    weights = policy.composite
    parts = composite_parts(policy, scorecard, privacy)
    named = {name: float(getattr(weights, name)) for name in parts}
    return sum(named[name] * part for name, part in parts.items()) / sum(named.values())


def _spent(stages: list[float], reference: float) -> float:
    total = math.fsum(stages) if stages and all(math.isfinite(value) and value >= 0 for value in stages) else math.inf
    return reference / (reference + total)


def _clip(value: float) -> float:
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
