"""Settings of the audit: what the owner states, and the limits of the gates."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modelmend.privacy.attacks import Access
from modelmend.records import Record

Sensitivity = Literal["public", "internal", "personal", "special"]

GATE_ATTACKS: dict[Access, tuple[str, ...]] = {
    "label-only": ("label-gap",),
    "scores": ("loss", "label-gap"),
    "white-box": ("loss", "gradient-norm"),
    "gradients": ("loss", "gradient-norm"),
}
"""Attacks that decide, by access. Two at most: each more widens every interval (Bonferroni), and those left out are so
correlated with these that they add width but no finding. All attacks within the access are measured and listed."""


class PrivacyConfig(Record):
    """Settings of ``audit``.

    The first six are the owner's statements, the rest are the gates' limits and the audit's effort.
    """

    access: Access = "scores"
    person_classes: bool = Field(default=False, description="a class is one person or one thing")
    sensitivity: Sensitivity = "internal"
    profile: Literal["default", "strict"] = Field(default="default", description="strict fails G1 above .60 already")
    random_split: bool = Field(
        default=True, description="modelmend drew the gate split at random; false when samples were added to it by hand"
    )
    earlier_version_known: bool = Field(default=False, description="attackers may hold the suspect too: update attack")

    level: float = Field(default=0.95, gt=0.5, lt=1)
    gate_attacks: tuple[str, ...] | None = Field(default=None, description="attacks that decide; None: by access")
    min_side: int = Field(default=200, ge=2, description="G0: samples a side")
    min_gate: int = Field(default=100, ge=2, description="G1, G3: below it the gate is not run")
    blind_limit: float = Field(default=0.55, description="G0: upper bound of the blind baseline, given members")
    blind_limit_random: float = Field(
        default=0.60, description="G0 where modelmend drew the split at random: the baseline can only contradict that"
    )
    auc_limit: float = 0.60
    auc_fail: float = 0.75
    tpr_limit: float = 0.05
    tpr_fail: float = 0.10
    tpr_min: int = Field(default=500, description="G2: non-members")
    change_limit: float = Field(default=0.05, description="G3: AUC after minus before, upper bound")
    bootstrap: int = Field(default=1000, ge=100)

    defences: bool = Field(default=True, description="measure output restriction against an adaptive attacker")
    queries: int = Field(default=8, ge=1, description="of the adaptive attacker, for each sample")
    inversion_steps: int = Field(default=200, ge=1)
    inversion_limit: float = 0.10
    inversion_fail: float = 0.30
    instance_limit: float = 0.05

    def deciding(self) -> tuple[str, ...]:
        """Names of the attacks that decide G1 and G3."""
        chosen = self.gate_attacks or GATE_ATTACKS[self.access]
        return (*chosen, "update") if self.earlier_version_known and "update" not in chosen else chosen
