"""The privacy audit of a repair: what the model leaks about the samples behind it, before and after."""

from __future__ import annotations

from typing import Any

import torch

from modelmend.errors import InputError
from modelmend.model.classifier import Classifier
from modelmend.privacy.classes import audit_classes
from modelmend.privacy.config import PrivacyConfig
from modelmend.privacy.defences import measure_defences
from modelmend.privacy.membership import audit_membership
from modelmend.privacy.outcome import not_run
from modelmend.privacy.statistics import Integers
from modelmend.privacy.subject import Pair, Subject
from modelmend.privacy.words import words
from modelmend.progress import Progress, silent
from modelmend.records import PrivacyFinding, PrivacyReport

__all__ = ["PrivacyConfig", "audit"]


def audit(
    before: Classifier,
    after: Classifier,
    members: Any | None,
    nonmembers: Any | None,
    repair: Any,
    gate: Any,
    *,
    config: PrivacyConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> PrivacyReport:
    """Attack both models and judge gates G0 to G7.

    Args:
        before: The suspect.
        after: The repaired model that may be registered.
        members: Samples (or ``(x, y)``) that the suspect was trained on, or ``None``.
        nonmembers: Samples like them that it was not trained on; ``None`` takes the gate split.
        repair: The repair split: the samples that the repair made into members.
        gate: The gate split: samples that no stage of the repair has used.
        config: Settings.
        seed: Of every random draw.
        progress: Called after every attack.

    Returns:
        The report: findings for the subjects ``repair`` and ``members``, ``canaries``, and ``classes`` or
        ``gradients`` where the owner's statements ask for them; rows for attacks and defences; words.

    Raises:
        InputError: the repair or gate split is empty.
    """
    config = config or PrivacyConfig()
    strangers = _pair(gate, "gate")
    subjects = [
        Subject("repair", _pair(repair, "repair"), strangers, random=config.random_split, groups=_groups(repair, gate))
    ]
    if members is not None:
        outside = strangers if nonmembers is None else _pair(nonmembers, "nonmembers")
        subjects.append(Subject("members", *_disjoint(_pair(members, "members"), outside), random=False))
    done, total = 0, 8 * len(subjects)

    def tick(text: str) -> None:
        nonlocal done
        done = min(done + 1, total)
        progress(text, done, total)

    findings: list[PrivacyFinding] = []
    rows: list[dict[str, Any]] = []
    for subject in subjects:
        judged = audit_membership(before, after, subject, config=config, seed=seed, tick=tick)
        findings += judged.findings
        rows += judged.rows
    if members is None:
        findings += _without_members(config)
    defences = measure_defences(after, subjects[-1], config=config, seed=seed) if config.defences else []
    findings.append(not_run("G4", "canaries", "no canaries were put into the repair split", absolute=True, needs=100))
    if config.person_classes:
        progress("inversion", done, total)
        judged_classes, reconstructed = audit_classes(after, subjects[-1].inside, strangers, config=config, seed=seed)
        findings += judged_classes
        rows += reconstructed
    if config.access == "gradients":
        findings.append(
            not_run(
                "G7",
                "gradients",
                "gradients are exposed, but this audit has no gradient inversion attack",
                absolute=False,
            )
        )
    progress("audit done", total, total)
    return PrivacyReport(
        access=config.access,
        screening=True,
        members="given" if members is not None else "repair split as members, gate split as non-members",
        findings=tuple(findings),
        attacks=tuple(rows),
        defences=tuple(defences),
        words=words(findings, defences, config, screening=True),
    )


def _pair(samples: Any, name: str) -> Pair:
    x, y = (samples.x, samples.y) if hasattr(samples, "x") else samples
    if not len(x):
        raise InputError("no samples to audit with", field=name, fix="give samples, or leave them out")
    return x, y


def _groups(inside: Any, outside: Any) -> Integers | None:
    """Near-duplicate groups of both sides, members first; both come from one set of samples."""
    if not hasattr(inside, "groups") or not hasattr(outside, "groups"):
        return None
    both: Integers = torch.cat([inside.groups, outside.groups]).cpu().numpy()
    return both


def _disjoint(inside: Pair, outside: Pair) -> tuple[Pair, Pair]:
    """Both sides without the samples that are on both: they are no evidence for either."""
    from modelmend.samples.data import content_ids

    ids, others = content_ids(inside[0].cpu()), content_ids(outside[0].cpu())
    shared = set(ids) & set(others)
    keep = [i for i, name in enumerate(ids) if name not in shared]
    keep_others = [i for i, name in enumerate(others) if name not in shared]
    return (inside[0][keep], inside[1][keep]), (outside[0][keep_others], outside[1][keep_others])


def _without_members(config: PrivacyConfig) -> list[PrivacyFinding]:
    reason = "no members: the samples that the suspect was trained on were not given"
    limits = {"G0": config.blind_limit, "G1": config.auc_limit, "G2": config.tpr_limit, "G3": config.change_limit}
    return [
        not_run(gate, "members", reason, limit=limit, absolute=gate != "G3", needs=config.min_side)
        for gate, limit in limits.items()
    ]
