"""From per-class evidence to one probability that the model is infected."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

from modelmend.probe.prevalence import PREVALENCE
from modelmend.probe.score import corroborated, lead
from modelmend.records import ClassEvidence

FILE = "calibration.json"


@dataclass(frozen=True)
class Probability:
    """Probability 0..1 that the model is infected, and whether it comes from a fitted calibration."""

    value: float
    calibrated: bool


def features(classes: Sequence[ClassEvidence]) -> dict[str, float]:
    """Scale-free summary of the evidence, comparable between models, data sets and numbers of classes.

    Returns:
        ``lead``: ``log1p`` of the largest distance, over the families, from a family's first class to its second, in
        units of the family's noise; ``anomaly``: ``log1p`` of the largest robust z-score.
    """
    classes = corroborated(classes)
    families = sorted({row.family for row in classes})
    rows = {f: [r for r in classes if r.family == f and r.strength is not None] for f in families}
    rows = {f: r for f, r in rows.items() if len(r) > 2}
    if not rows:
        return {"lead": 0.0, "anomaly": 0.0}
    anomalies = [r.anomaly for found in rows.values() for r in found if r.anomaly is not None]
    return {
        "lead": math.log1p(max(lead(found) for found in rows.values())),
        "anomaly": math.log1p(max(0.0, *anomalies)) if anomalies else 0.0,
    }


def probability(classes: Sequence[ClassEvidence]) -> Probability:
    """Probability of an infection: the shipped logistic model, or, without one, a monotone score of the lead.

    The model reads the families that it was fitted on; where one of them was not run, the score takes its place. Prevalence
    may be missing: it says nothing of most networks, and after a repair it tells what the repair did to the classes.
    """
    model = _shipped()
    names = set() if model is None else set(model["families"])
    whole = bool(names) and names - {PREVALENCE} <= {row.family for row in classes}
    found = features([row for row in classes if row.family in names] if whole else classes)
    if model is None or not whole:
        return Probability(_logistic(5 * (found["lead"] - 1.1)), calibrated=False)
    total = model["intercept"] + sum(weight * found[name] for name, weight in model["weights"].items())
    return Probability(_logistic(total), calibrated=True)


@cache
def _shipped() -> dict[str, Any] | None:
    path = resources.files("modelmend.probe").joinpath(FILE)
    return cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, value))))
