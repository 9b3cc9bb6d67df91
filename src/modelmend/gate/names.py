"""Names of the checks that a policy may leave unmeasured, and the nearest name for a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

PRIVACY_SKIPPABLE = (
    "privacy.G0.members",
    "privacy.G1.members",
    "privacy.G2.members",
    "privacy.G2.repair",
    "privacy.G3.members",
    "privacy.G4.canaries",
    "privacy.G5.classes",
    "privacy.G6.classes",
    "privacy.G7.gradients",
)
"""Privacy gates that need something the owner may not have: members, canaries, person classes, exposed gradients."""

SKIPPABLE = ("accuracy.classes", "backdoor.known_trigger", "backdoor.reactivation", *PRIVACY_SKIPPABLE)
"""Every name that ``allowed_not_run`` takes. The others can never be skipped."""


def nearest(name: str, names: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest of ``names``, or an empty string when none is close."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""
