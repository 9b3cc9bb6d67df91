"""From fitted triggers to evidence: held-out success, strength, anomaly over the classes, order of suspicion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from modelmend.metrics import attack_success
from modelmend.model.classifier import Classifier
from modelmend.probe.anomaly import anomaly_index, gap
from modelmend.probe.families import FAMILIES, TriggerFamily
from modelmend.probe.margin import MARGIN
from modelmend.probe.prevalence import PREVALENCE
from modelmend.probe.search import Fit
from modelmend.probe.trigger import Trigger
from modelmend.probe.witnesses import NOISES
from modelmend.records import ClassEvidence

NOT_REACHED = 0.5
"""Taken off the strength, times the flip rate that is missing, where no trigger up to the largest size is enough."""


ALONE = 2.5
"""Lead, in units of the family's noise, from which a class is alone ahead."""


@torch.no_grad()
def success(classifier: Classifier, trigger: Trigger, x: Tensor, y: Tensor, target: int) -> tuple[int, int]:
    """Flipped and counted samples: those not of the target class.

    Args:
        classifier: The model.
        trigger: The candidate.
        x: Clean samples ``(N, ...)``.
        y: Labels ``(N,)``.
        target: The trigger's class.
    """
    others = y != target
    if not bool(others.any()):
        return 0, 0
    predicted = classifier.predict(trigger(x[others].to(classifier.device)))
    rate = attack_success(predicted, y[others], target)
    return round(rate * int(others.sum())), int(others.sum())


def strength(fit: Fit, tau: float) -> float:
    """``-log size``, less a share of what is missing of the flip rate where the search hit the largest size."""
    missing = max(0.0, tau - fit.flipped) if fit.capped else 0.0
    return -math.log(max(fit.size, 1e-9)) - NOT_REACHED * missing


def class_evidence(
    family: TriggerFamily, fits: Mapping[int, Fit], rates: Mapping[int, float | None]
) -> tuple[ClassEvidence, ...]:
    """Evidence of one family for the classes that it searched.

    Args:
        family: The family.
        fits: Target -> fit.
        rates: Target -> held-out success.
    """
    targets = sorted(fits)
    strengths = [strength(fits[t], family.tau) for t in targets]
    indices = anomaly_index(strengths, family.noise)
    return tuple(
        ClassEvidence(
            family=family.name, target=t, success=rates.get(t), strength=s, anomaly=float(a), size=fits[t].size
        )
        for t, s, a in zip(targets, strengths, indices, strict=True)
    )


def lead(rows: Sequence[ClassEvidence]) -> float:
    """Distance from one family's first class to its second, in units of the family's noise; 0 for one class."""
    return gap([row.strength for row in rows if row.strength is not None]) / _noise(rows[0].family) if rows else 0.0


def leads(classes: Sequence[ClassEvidence]) -> dict[tuple[str, int], float]:
    """(family, target) -> how far the class is ahead of the best other one, in units of the family's noise."""
    found: dict[tuple[str, int], float] = {}
    for name in dict.fromkeys(row.family for row in classes):
        strengths = {r.target: r.strength for r in classes if r.family == name and r.strength is not None}
        for target, own in strengths.items():
            others = [value for other, value in strengths.items() if other != target]
            if others and math.isfinite(own):
                found[name, target] = (own - max(others)) / _noise(name)
    return found


def _noise(family: str) -> float:
    """Spread of the strengths of a family, or of a witness, that means nothing."""
    return FAMILIES[family].noise if family in FAMILIES else NOISES.get(family, NOISES[MARGIN])


def standing_out(classes: Sequence[ClassEvidence]) -> list[ClassEvidence]:
    """The first class of every family in which it is alone ahead of the others, largest lead first."""
    found = []
    for name in dict.fromkeys(row.family for row in classes):
        rows = [row for row in classes if row.family == name and row.strength is not None]
        if len(rows) > 2 and lead(rows) >= ALONE:
            found.append((lead(rows), max(rows, key=lambda row: row.strength or -math.inf)))
    return [row for _, row in sorted(found, key=lambda item: -item[0])]


def first_classes(classes: Sequence[ClassEvidence]) -> dict[str, int]:
    """Family -> the class that it finds most like a backdoor's."""
    found: dict[str, ClassEvidence] = {}
    for row in classes:
        if row.strength is not None and (row.family not in found or row.strength > (found[row.family].strength or 0.0)):
            found[row.family] = row
    return {family: row.target for family, row in found.items()}


def corroborated(classes: Sequence[ClassEvidence]) -> list[ClassEvidence]:
    """Evidence without prevalence, unless a trigger family names the same class.

    Clean samples that hold a class in another share than the training set shift it, too, and no trigger leads there.
    """
    first = first_classes(classes)
    accused = {target for family, target in first.items() if family in FAMILIES}
    return [row for row in classes if row.family != PREVALENCE or first.get(PREVALENCE) in accused]


def support(classes: Sequence[ClassEvidence]) -> dict[int, float]:
    """Target -> sum of ``log(1 + lead)`` over the families whose first class it is (ours).

    One family that is far ahead counts, and so do several that agree with a small lead each: by chance eight families
    seldom name the same class.
    """
    classes = corroborated(classes)
    found = dict.fromkeys((row.target for row in classes), 0.0)
    for name, target in first_classes(classes).items():
        rows = [row for row in classes if row.family == name and row.strength is not None]
        if len(rows) > 2:
            found[target] += math.log1p(lead(rows))
    return found


def suspicion(classes: Sequence[ClassEvidence]) -> dict[int, float]:
    """Target -> suspicion: its support, and a third of its mean anomaly (clipped to 0..5), which orders the rest."""
    anomalies: dict[int, list[float]] = {}
    for row in corroborated(classes):
        if row.anomaly is not None:
            anomalies.setdefault(row.target, []).append(min(5.0, max(0.0, row.anomaly)))
    backed = support(classes)
    return {t: backed[t] + float(np.mean(values)) / 3 for t, values in anomalies.items()}
