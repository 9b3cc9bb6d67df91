"""Gates G0 to G3: from what the attacks measured to findings."""

from __future__ import annotations

from collections.abc import Sequence

from modelmend.privacy.blind import blind_scores
from modelmend.privacy.config import PrivacyConfig
from modelmend.privacy.outcome import Outcome, finding, not_run
from modelmend.privacy.statistics import auc_interval, zero_leak_samples
from modelmend.privacy.subject import Line, Subject
from modelmend.records import PrivacyFinding


def validity(subject: Subject, config: PrivacyConfig, seed: int) -> PrivacyFinding:
    """G0: enough samples, and a blind classifier cannot tell the sides apart."""
    limit = config.blind_limit_random if subject.random else config.blind_limit
    n, absolute = subject.n, subject.absolute
    if n < 10:
        reason = f"{n} samples a side; a blind baseline needs 10, the gate {config.min_side}"
        return not_run("G0", subject.name, reason, limit=limit, absolute=absolute, needs=config.min_side)
    interval = auc_interval(blind_scores(subject.inside, subject.outside, seed), config.level, subject.groups)
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


def highest(subject: Subject, lines: Sequence[Line], valid: PrivacyFinding, config: PrivacyConfig) -> PrivacyFinding:
    """G1: the attack with the highest upper bound, Bonferroni over the deciding attacks."""
    if subject.n < config.min_gate:
        return _below(subject, "G1", config)
    worst = max(lines, key=lambda line: line.auc.high)
    fail_above = config.auc_limit if config.profile == "strict" else config.auc_fail
    contradicted = valid.measured.low is not None and valid.limit is not None and valid.measured.low > valid.limit
    forced: Outcome | None = None
    text = f"AUC of the strongest of {len(lines)} deciding attacks ({worst.attack}) on the repaired model"
    if contradicted:
        forced, text = "inconclusive", f"{text}; the samples differ without the model (G0), so this proves nothing"
    elif worst.auc.high <= config.auc_limit and valid.outcome != "pass":
        forced, text = "inconclusive", f"{text}; the audit is not shown to be valid (G0)"
    return finding(
        "G1", subject.name, worst.auc, limit=config.auc_limit, fail_above=fail_above, n=subject.n, level=worst.level,
        method=f"DeLong{_how(subject, lines)}", text=text, absolute=subject.absolute, forced=forced,
    )  # fmt: skip


def low_fpr(subject: Subject, lines: Sequence[Line], config: PrivacyConfig) -> PrivacyFinding:
    """G2: true positive rate at 1 % false positives."""
    strangers = len(subject.outside[1])
    if strangers < config.tpr_min:
        reason = f"{strangers} non-members; a false positive rate of 1 % needs {config.tpr_min}"
        return not_run(
            "G2", subject.name, reason, limit=config.tpr_limit, absolute=subject.absolute, needs=config.tpr_min
        )
    worst = max(lines, key=lambda line: line.low_fpr.high)
    return finding(
        "G2", subject.name, worst.low_fpr, limit=config.tpr_limit, fail_above=config.tpr_fail,
        n=len(subject.inside[1]), level=worst.level, method=f"Clopper-Pearson, Bonferroni over {_names(lines)}",
        text=f"TPR at 1 % FPR of the strongest deciding attack ({worst.attack})", absolute=subject.absolute,
    )  # fmt: skip


def change(subject: Subject, lines: Sequence[Line], config: PrivacyConfig) -> PrivacyFinding:
    """G3: the repair must not raise the AUC; a bound that is not shown fails."""
    if subject.n < config.min_gate:
        return _below(subject, "G3", config)
    changes = [(line.attack, line.change, line.level) for line in lines if line.change is not None]
    attack, worst, level = max(changes, key=lambda change: change[1].high)
    text = f"AUC after the repair minus before ({attack})"
    if subject.random:
        text = f"AUC after the repair over the 0.5 that holds before it ({attack})"
    return finding(
        "G3", subject.name, worst, limit=config.change_limit, fail_above=None, n=subject.n, level=level,
        method=f"paired bootstrap{_how(subject, lines)}", absolute=False, text=text,
        forced="pass" if worst.high <= config.change_limit else "fail",
    )  # fmt: skip


def _how(subject: Subject, lines: Sequence[Line]) -> str:
    adjusted = ", adjusted for the suspect's output (sides drawn at random)" if subject.random else ""
    return f"{adjusted}, Bonferroni over {_names(lines)}"


def _names(lines: Sequence[Line]) -> str:
    return ", ".join(line.attack for line in lines)


def _below(subject: Subject, gate: str, config: PrivacyConfig) -> PrivacyFinding:
    reason = f"{subject.n} samples a side, {config.min_gate} needed"
    limit = config.auc_limit if gate == "G1" else config.change_limit
    absolute = subject.absolute and gate != "G3"
    return not_run(gate, subject.name, reason, limit=limit, absolute=absolute, needs=config.min_gate)


def too_few(subject: Subject, config: PrivacyConfig) -> list[PrivacyFinding]:
    """G0 to G3 as not run, when a side has fewer than two samples."""
    reason = f"{subject.n} samples on one side"
    return [
        not_run(gate, subject.name, reason, absolute=subject.absolute and gate != "G3", needs=config.min_side)
        for gate in ("G0", "G1", "G2", "G3")
    ]
