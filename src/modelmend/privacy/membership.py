"""Membership inference on one pair of sample sets, before and after the repair: gates G0 to G3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from modelmend.model.classifier import Classifier
from modelmend.privacy.attacks import ATTACKS, MembershipAttack, reaches, view
from modelmend.privacy.config import PrivacyConfig
from modelmend.privacy.covariate import features
from modelmend.privacy.gates import change, highest, low_fpr, too_few, validity
from modelmend.privacy.measure import measure
from modelmend.privacy.statistics import Interval, bonferroni
from modelmend.privacy.subject import Line, Subject
from modelmend.records import PrivacyFinding


@dataclass(frozen=True)
class Judged:
    """Findings of one subject, and a row for each attack that was run."""

    findings: list[PrivacyFinding]
    rows: list[dict[str, Any]]


def audit_membership(
    before: Classifier,
    after: Classifier,
    subject: Subject,
    *,
    config: PrivacyConfig,
    seed: int,
    extra: tuple[MembershipAttack, ...] = (),
    tick: Callable[[str], None] = lambda text: None,
) -> Judged:
    """Run every attack within the access on both models and judge G0 to G3.

    Args:
        before: The suspect.
        after: The repaired model.
        subject: The two sample sets.
        config: Settings.
        seed: Of folds and bootstrap.
        extra: Attacks built for this audit (reference models); they decide as well.
        tick: Called after every attack.
    """
    if subject.n < 2:
        return Judged(too_few(subject, config), [])
    valid = validity(subject, config, seed)
    attacks = {a.name: a for a in (*ATTACKS.values(), *extra) if reaches(config.access, a.access)}
    deciding = tuple(name for name in (*config.deciding(), *(a.name for a in extra)) if name in attacks)
    level = bonferroni(config.level, len(deciding))
    views = _views(before, after, subject)
    known = features(views[0])
    lines: dict[str, Line] = {}
    for name, attack in attacks.items():
        old = None if name == "update" else attack.score(views[0]).cpu().double().numpy()
        new = attack.score(views[1]).cpu().double().numpy()
        own = level if name in deciding else config.level
        lines[name] = measure(name, subject, old, new, known, level=own, config=config, seed=seed)
        tick(f"{name} on {subject.name}")
    chosen = [lines[name] for name in deciding]
    found = [valid, highest(subject, chosen, valid, config), low_fpr(subject, chosen, config)]
    return Judged([*found, change(subject, chosen, config)], [_row(line, subject, deciding) for line in lines.values()])


def _views(before: Classifier, after: Classifier, subject: Subject) -> tuple[Any, Any]:
    x = torch.cat([subject.inside[0], subject.outside[0]])
    y = torch.cat([subject.inside[1], subject.outside[1]])
    old = view(before, x, y)
    return old, view(after, x, y, earlier=old.logits)


def _row(line: Line, subject: Subject, deciding: tuple[str, ...]) -> dict[str, Any]:
    """A line of the table of attacks; intervals at the joint level for deciding attacks, else at the plain one."""
    row: dict[str, Any] = {
        "attack": line.attack,
        "subject": subject.name,
        "decides": line.attack in deciding,
        "n_members": len(subject.inside[1]),
        "n_nonmembers": len(subject.outside[1]),
        "level": line.level,
        "after": _figures(line.plain),
        "judged": _figures(line.auc),
        "tpr_at_1pct_fpr": _figures(line.low_fpr),
    }
    if line.before is not None:
        row["before"] = _figures(line.before)
    if line.change is not None:
        row["change"] = _figures(line.change)
    return row


def _figures(interval: Interval) -> dict[str, float]:
    return {k: round(v, 4) for k, v in (("value", interval.value), ("low", interval.low), ("high", interval.high))}
