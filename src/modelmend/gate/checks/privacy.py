"""The audit's gates G0..G7 as lines of the decision: re-read from their numbers, softened only by the policy."""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelmend.gate.checks.base import Case, Outcome, check, line
from modelmend.records import Check, PrivacyFinding

TITLE = "The model and its repair leak no more than allowed"

REQUIRED = ("privacy.G1.repair", "privacy.G3.repair")
"""What the repair itself leaks, and whether it makes anything worse: measurable without anything from the owner."""

ABOUT_MEMBERS = ("privacy.G0.members", "privacy.G1.members", "privacy.G2.members", "privacy.G3.members")
ABOUT_CLASSES = ("privacy.G5.classes", "privacy.G6.classes")
SOFT_GATES = frozenset({"G0", "G1", "G2", "G4", "G5", "G6"})
"""Gates that may be absolute statements about the original members; G3 and G7 never are."""

_TITLES = {
    "G0": "The audit itself is valid",
    "G1": "Members cannot be told from strangers",
    "G2": "No single member can be told with confidence",
    "G3": "The repair makes nothing worse",
    "G4": "Canaries are not memorised",
    "G5": "No person can be reconstructed from a class",
    "G6": "No single photo can be reconstructed",
    "G7": "Gradients reveal no input",
}


@check("privacy", TITLE)
def privacy(case: Case) -> Iterator[Check]:
    """A line for each finding and a ``not_run`` line for each one that is expected and absent."""
    findings = case.privacy.findings if case.privacy is not None else ()
    if case.privacy is not None and not _covers(case.privacy.access, case.policy.privacy.access):
        reason = f"audited for {case.privacy.access} access, the policy says {case.policy.privacy.access}"
        yield line("privacy.access", "The audit covers the access that callers have", "inconclusive", reason)
    seen = set()
    for finding in findings:
        if finding.gate == "G8":
            continue  # about applying a defence, not about the model
        name = finding_name(finding)
        seen.add(name)
        outcome, reason = _band(case, finding, *_outcome(finding))
        if outcome not in ("pass", "not_run") and _soft(case, finding):
            outcome, reason = "warn", f"{reason}; a warning only: about the suspect's original members"
        title = f"{_TITLES.get(finding.gate, finding.gate)} ({finding.subject})"
        yield line(name, title, outcome, reason, measured=finding.measured, bound=finding.limit)
    for name in _expected(case):
        if name not in seen:
            reason = "the privacy audit did not run" if case.privacy is None else "the audit has no such finding"
            yield line(name, f"{_TITLES[name.split('.')[1]]} ({name.split('.')[2]})", "not_run", reason)


def finding_name(finding: PrivacyFinding) -> str:
    """Name of a finding's line: ``privacy.<gate>.<subject>`` in lower-case words joined by ``-``."""
    return f"privacy.{finding.gate}.{re.sub(r'[^a-z0-9]+', '-', finding.subject.lower()).strip('-') or 'model'}"


def _outcome(finding: PrivacyFinding) -> tuple[Outcome, str]:
    """The finding's outcome; a pass must follow from its own numbers."""
    if finding.outcome != "pass":
        return finding.outcome, finding.reason
    measured = finding.measured
    number = measured.value if measured.high is None and finding.gate == "G4" else measured.high
    if measured.value is None or number is None or finding.limit is None:
        return "inconclusive", "said to pass, but its number, upper end or limit is missing"
    if number > finding.limit:
        return "fail", f"said to pass, but {number:.4g} is above the limit {finding.limit:.4g}"
    return "pass", finding.reason


def _band(case: Case, finding: PrivacyFinding, outcome: Outcome, reason: str) -> tuple[Outcome, str]:
    """The band between the two limits: a warning, which blocks where the policy enforces.

    An interval that straddles the first limit only is shown to be below the failing one: that is the band too.
    """
    low, high, fails = finding.measured.low, finding.measured.high, finding.fail_above
    below = low is not None and high is not None and fails is not None and low <= high <= fails
    if case.policy.privacy.absolute == "enforce":
        return ("fail", f"{reason}; the policy enforces the first limit") if outcome == "warn" else (outcome, reason)
    if outcome == "warn" and not below:
        return "inconclusive", f"{reason}; said to be a warning, but not shown to be below the failing limit"
    if finding.outcome == "inconclusive" and below and finding.gate in ("G1", "G2"):
        return "warn", f"{reason}; shown to be below the failing limit {fails:.2f}, not below the first"
    return outcome, reason


def _soft(case: Case, finding: PrivacyFinding) -> bool:
    about_repair = finding_name(finding).endswith(".repair")
    return (
        case.policy.privacy.absolute == "warn" and finding.absolute and finding.gate in SOFT_GATES and not about_repair
    )


def _covers(audited: str, stated: str) -> bool:
    """An audit for wider access covers narrower access."""
    order = ("label-only", "scores", "white-box", "gradients")
    return audited in order and order.index(audited) >= order.index(stated)


def _expected(case: Case) -> Iterator[str]:
    yield from REQUIRED
    yield from ABOUT_MEMBERS
    yield "privacy.G2.repair"
    yield "privacy.G4.canaries"
    if case.policy.privacy.person_classes:
        yield from ABOUT_CLASSES
    if case.policy.privacy.access == "gradients":
        yield "privacy.G7.gradients"
