"""Membership attacks by name; a new one is one class and one entry here."""

from __future__ import annotations

from modelmend.privacy.attacks.base import Access, MembershipAttack, View, reaches, view
from modelmend.privacy.attacks.gradient import GradientNorm
from modelmend.privacy.attacks.output import Gap, Loss, ModifiedEntropy, Update

ATTACKS: dict[str, MembershipAttack] = {
    attack.name: attack for attack in (Gap(), Loss(), ModifiedEntropy(), GradientNorm(), Update())
}

__all__ = ["ATTACKS", "Access", "MembershipAttack", "View", "reaches", "view"]
