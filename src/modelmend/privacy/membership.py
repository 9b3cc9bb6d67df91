"""Membership inference on one pair of sample sets, before and after the repair: gates G0 to G3."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelmend.model.classifier import Classifier
from modelmend.privacy.attacks import ATTACKS, MembershipAttack, reaches, view
from modelmend.privacy.blind import blind_scores
from modelmend.privacy.config import PrivacyConfig
from modelmend.privacy.outcome import Outcome, finding, not_run
from modelmend.privacy.statistics import (
    Interval,
    auc_interval,
    bonferroni,
    paired_bootstrap,
    tpr_at_fpr,
    zero_leak_samples,
)
from modelmend.records import PrivacyFinding

Scores = tuple[NDArray[np.float64], NDArray[np.float64]]
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Subject:
    """Whose membership is judged.

    Attributes:
        name: ``members`` (the suspect's training samples) or ``repair`` (the samples the repair used).
        inside: Samples and classes of the members.
        outside: Samples and classes of the non-members.
        random: modelmend itself drew which sample is on which side.
    """

    name: str
    inside: Pair
    outside: Pair
    random: bool

    @property
    def absolute(self) -> bool:
        """About the original members."""
        return self.name == "members"

    @property
    def n(self) -> int:
        """Samples of the smaller side."""
        return min(len(self.inside[1]), len(self.outside[1]))


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
        return Judged(_too_few(subject, config), [])
    valid = _validity(subject, config, seed)
    attacks = {a.name: a for a in (*ATTACKS.values(), *extra) if reaches(config.access, a.access)}
    deciding = tuple(name for name in (*config.deciding(), *(a.name for a in extra)) if name in attacks)
    level = bonferroni(config.level, len(deciding))
    scored: dict[str, tuple[Scores | None, Scores]] = {}
    views = _views(before, after, subject)
    for name, attack in attacks.items():
        old = None if name == "update" else _split(attack.score(views[0]), subject)
        scored[name] = (old, _split(attack.score(views[1]), subject))
        tick(f"{name} on {subject.name}")
    rows = [
        _row(name, scores, subject, config, deciding=deciding, level=level, seed=seed)
        for name, scores in scored.items()
    ]
    found = [valid, _highest(subject, scored, deciding, level, valid, config)]
    found.append(_low_fpr(subject, scored, deciding, level, config))
    found.append(_change(subject, scored, deciding, level, config, seed))
    return Judged(found, rows)


def _views(before: Classifier, after: Classifier, subject: Subject) -> tuple[Any, Any]:
    x = torch.cat([subject.inside[0], subject.outside[0]])
    y = torch.cat([subject.inside[1], subject.outside[1]])
    old = view(before, x, y)
    return old, view(after, x, y, earlier=old.logits)


def _split(scores: Tensor, subject: Subject) -> Scores:
    values = scores.detach().cpu().double().numpy()
    m = len(subject.inside[1])
    return values[:m], values[m:]


def _validity(subject: Subject, config: PrivacyConfig, seed: int) -> PrivacyFinding:
    """G0: enough samples, and a blind classifier cannot tell the sides apart."""
    limit = config.blind_limit_random if subject.random else config.blind_limit
    n, absolute = subject.n, subject.absolute
    if n < 10:
        reason = f"{n} samples a side; a blind baseline needs 10, the gate {config.min_side}"
        return not_run("G0", subject.name, reason, limit=limit, absolute=absolute, needs=config.min_side)
    interval = auc_interval(*blind_scores(subject.inside, subject.outside, seed), config.level)
    text = "AUC of a classifier that never sees the model"
    if subject.random:
        strict = zero_leak_samples(config.blind_limit, level=config.level)
        text += (
            f" (modelmend drew the sides at random, so it can only contradict that; to show {config.blind_limit:.2f} "
            f"by measurement alone takes about {strict} a side)"
        )
    forced: Outcome | None = "inconclusive" if n < config.min_side or interval.high > limit else None
    if n < config.min_side:
        text = f"{n} samples a side, {config.min_side} needed; {text}"
    return finding(
        "G0", subject.name, interval, limit=limit, fail_above=None, n=n, level=config.level, forced=forced,
        method="cross-validated logistic regression on raw inputs, DeLong", text=text, absolute=absolute,
    )  # fmt: skip


def _highest(
    subject: Subject,
    scored: dict[str, tuple[Scores | None, Scores]],
    deciding: tuple[str, ...],
    level: float,
    valid: PrivacyFinding,
    config: PrivacyConfig,
) -> PrivacyFinding:
    """G1: the attack with the highest upper bound, Bonferroni over the deciding attacks."""
    if subject.n < config.min_gate:
        return _below(subject, "G1", config)
    intervals = {name: auc_interval(*scored[name][1], level) for name in deciding}
    worst = max(intervals, key=lambda name: intervals[name].high)
    fail_above = config.auc_limit if config.profile == "strict" else config.auc_fail
    contradicted = valid.measured.low is not None and valid.limit is not None and valid.measured.low > valid.limit
    forced: Outcome | None = None
    text = f"AUC of the strongest of {len(deciding)} deciding attacks ({worst}) on the repaired model"
    if contradicted:
        forced, text = "inconclusive", f"{text}; the samples differ without the model (G0), so this proves nothing"
    elif intervals[worst].high <= config.auc_limit and valid.outcome != "pass":
        forced, text = "inconclusive", f"{text}; the audit is not shown to be valid (G0)"
    return finding(
        "G1", subject.name, intervals[worst], limit=config.auc_limit, fail_above=fail_above, n=subject.n, level=level,
        method=f"DeLong, Bonferroni over {', '.join(deciding)}", text=text, absolute=subject.absolute, forced=forced,
    )  # fmt: skip


def _low_fpr(
    subject: Subject,
    scored: dict[str, tuple[Scores | None, Scores]],
    deciding: tuple[str, ...],
    level: float,
    config: PrivacyConfig,
) -> PrivacyFinding:
    """G2: true positive rate at 1 % false positives."""
    strangers = len(subject.outside[1])
    if strangers < config.tpr_min:
        reason = f"{strangers} non-members; a false positive rate of 1 % needs {config.tpr_min}"
        return not_run(
            "G2", subject.name, reason, limit=config.tpr_limit, absolute=subject.absolute, needs=config.tpr_min
        )
    intervals = {name: tpr_at_fpr(*scored[name][1], 0.01, level) for name in deciding}
    worst = max(intervals, key=lambda name: intervals[name].high)
    return finding(
        "G2", subject.name, intervals[worst], limit=config.tpr_limit, fail_above=config.tpr_fail,
        n=len(subject.inside[1]), level=level, method=f"Clopper-Pearson, Bonferroni over {', '.join(deciding)}",
        text=f"TPR at 1 % FPR of the strongest deciding attack ({worst})", absolute=subject.absolute,
    )  # fmt: skip


def _change(
    subject: Subject,
    scored: dict[str, tuple[Scores | None, Scores]],
    deciding: tuple[str, ...],
    level: float,
    config: PrivacyConfig,
    seed: int,
) -> PrivacyFinding:
    """G3: the repair must not raise the AUC; a bound that is not shown fails."""
    if subject.n < config.min_gate:
        return _below(subject, "G3", config)
    intervals: dict[str, Interval] = {}
    for name in deciding:
        old, new = scored[name]
        if old is not None:
            intervals[name] = paired_bootstrap(old, new, level, seed=seed, draws=config.bootstrap)
    worst = max(intervals, key=lambda name: intervals[name].high)
    passed = intervals[worst].high <= config.change_limit
    return finding(
        "G3", subject.name, intervals[worst], limit=config.change_limit, fail_above=None, n=subject.n, level=level,
        method=f"paired bootstrap, Bonferroni over {', '.join(intervals)}", absolute=False,
        text=f"AUC after the repair minus before ({worst})", forced="pass" if passed else "fail",
    )  # fmt: skip


def _row(
    name: str,
    scores: tuple[Scores | None, Scores],
    subject: Subject,
    config: PrivacyConfig,
    *,
    deciding: tuple[str, ...],
    level: float,
    seed: int,
) -> dict[str, Any]:
    """One line of the table of attacks; intervals at the joint level for deciding attacks, else at the plain one."""
    old, new = scores
    own = level if name in deciding else config.level
    row: dict[str, Any] = {
        "attack": name,
        "subject": subject.name,
        "decides": name in deciding,
        "n_members": len(new[0]),
        "n_nonmembers": len(new[1]),
        "level": own,
        "after": _figures(auc_interval(*new, own)),
        "tpr_at_1pct_fpr": _figures(tpr_at_fpr(*new, 0.01, own)),
    }
    if old is not None:
        row["before"] = _figures(auc_interval(*old, own))
        row["change"] = _figures(paired_bootstrap(old, new, own, seed=seed, draws=config.bootstrap))
    return row


def _figures(interval: Interval) -> dict[str, float]:
    return {k: round(v, 4) for k, v in (("value", interval.value), ("low", interval.low), ("high", interval.high))}


def _below(subject: Subject, gate: str, config: PrivacyConfig) -> PrivacyFinding:
    reason = f"{subject.n} samples a side, {config.min_gate} needed"
    limit = config.auc_limit if gate == "G1" else config.change_limit
    absolute = subject.absolute and gate != "G3"
    return not_run(gate, subject.name, reason, limit=limit, absolute=absolute, needs=config.min_gate)


def _too_few(subject: Subject, config: PrivacyConfig) -> list[PrivacyFinding]:
    reason = f"{subject.n} samples on one side"
    return [
        not_run(gate, subject.name, reason, absolute=subject.absolute and gate != "G3", needs=config.min_side)
        for gate in ("G0", "G1", "G2", "G3")
    ]
