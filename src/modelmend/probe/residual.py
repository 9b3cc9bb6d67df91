"""Is the backdoor gone? Triggers are inverted again, from scratch, on the repaired model, and held to one size.

A family that looks for the smallest trigger always finds some; what counts is whether a *small* one still works. The
size is read off the suspect: it is the largest at which triggers of its ordinary classes still fail (``QUIET``). So a
clean model stays low, an infected one is flipped, and what a size means does not depend on the image or the network.
The other classes of the repaired model, at the same size, give the floor (all ours).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from modelmend.metrics import clopper_pearson, sample_passes, upper_bound
from modelmend.model.classifier import Classifier
from modelmend.probe.calibration import probability
from modelmend.probe.choice import fitting
from modelmend.probe.families import TriggerFamily
from modelmend.probe.run import Pair, look, settings
from modelmend.probe.score import success, suspicion
from modelmend.probe.search import Fit, SearchConfig
from modelmend.progress import Progress, silent
from modelmend.records import ClassEvidence, Evidence, Measured, Residual

SHARES = (0.3, 0.4, 0.5)
"""Sizes tried, as shares of the median size that an ordinary class of the suspect needs."""
QUIET = 0.10
"""Flip rate that nine of ten ordinary classes stay under at the chosen size."""
ORDINARY = 8
"""Classes that stand for the others."""
JUDGED = 3
TELLING = 2.5
"""Anomaly from which a class that is not the first suspect is judged too."""
RESTARTS = 2


def residual(
    before: Classifier,
    after: Classifier,
    fit: Pair,
    holdout: Pair,
    *,
    evidence: Evidence,
    used: Sequence[str],
    kept: str,
    seed: int,
    progress: Progress = silent,
) -> tuple[list[Residual], Evidence]:
    """Measure what every family still finds after the repair.

    Args:
        before: The suspect.
        after: The repaired model.
        fit: Clean samples and labels that triggers are fitted on.
        holdout: Samples of the gate split, on which success is counted.
        evidence: What the probe found on the suspect.
        used: Families of the reward and the edit.
        kept: The family kept back until now; it looks at the suspect here for the first time.
        seed: Of all draws; give another than the probe had.
        progress: Called after every step.

    Returns:
        One record for each family and judged class, and the evidence of the repaired model (all families, screen).
    """
    started, spent = time.monotonic(), sample_passes()
    images = fit[0].dim() == 4
    families = [(fitting(name, before, images), "used") for name in used] + [(fitting(kept, before, images), "kept")]
    everyone = list(range(before.num_classes))
    config = settings("screen", len(everyone))
    parts = _Parts(progress, 4 * len(families) - len(used))
    looks: dict[str, tuple[ClassEvidence, ...]] = {}
    again: list[ClassEvidence] = []
    for family, role in families:
        old = tuple(row for row in evidence.classes if row.family == family.name)
        if role == "kept" or len(old) < min(3, len(everyone)):
            old = look(before, fit, holdout, family, everyone, config, seed, parts.next()).rows
        looks[family.name] = old
        again += look(after, fit, holdout, family, everyone, config, seed + 1, parts.next()).rows
    kept_rows = [row for family, role in families if role == "kept" for row in looks[family.name]]
    judged = _judged(evidence.suspects, kept_rows, again)
    found: list[Residual] = []
    for family, role in families:
        sizes = {row.target: row.size for row in looks[family.name] if row.size is not None}
        ordinary = _ordinary(sizes, judged)
        quiet = _quiet_radius(before, fit, holdout, family, sizes, ordinary, config, seed + 2, parts.next())
        measure = _Measure(family, fit, holdout, quiet, replace(config, tau=family.tau), seed + 3)
        was = measure(before, judged, parts.silent)
        now = measure(after, [*judged, *ordinary], parts.next())
        floor = _floor([now[t] for t in ordinary], family)
        for target in judged:
            excess = None
            if floor is not None and floor.high is not None and now[target].value is not None:
                excess = max(0.0, (now[target].value or 0.0) - floor.high)
            found.append(
                Residual(
                    family=family.name,
                    role="kept" if role == "kept" else "used",
                    target=target,
                    before=was[target],
                    after=now[target],
                    floor=floor,
                    excess=excess,
                    budget=quiet,
                )
            )
    chance = probability(again)
    scores = suspicion(again)
    return found, Evidence(
        mode="screen",
        backdoor=chance.value >= 0.5,
        probability=chance.value,
        calibrated=chance.calibrated,
        suspects=tuple(sorted(scores, key=lambda t: (-scores[t], t))[:JUDGED]),
        families=tuple(family.name for family, _ in families),
        kept_family=kept,
        classes=tuple(again),
        seed=seed,
        seconds=round(time.monotonic() - started, 3),
        passes=sample_passes() - spent,
    )


@dataclass(frozen=True)
class _Measure:
    """From-scratch inversion within a radius, counted on the held-out samples."""

    family: TriggerFamily
    fit: Pair
    holdout: Pair
    radius: float
    config: SearchConfig
    seed: int

    def __call__(self, classifier: Classifier, targets: Sequence[int], progress: Progress) -> dict[int, Measured]:
        """The better of the restarts, chosen on the samples of the fit, for each target."""
        best: dict[int, Fit] = {}
        for restart in range(RESTARTS):
            fits = self.family.fit_classes(
                classifier,
                *self.fit,
                targets,
                seed=self.seed + 17 * restart,
                config=self.config,
                radius=torch.full((len(targets),), self.radius),
                progress=progress,
            )
            for target, one in zip(targets, fits, strict=True):
                if target not in best or one.flipped > best[target].flipped:
                    best[target] = one
        return {target: self._counted(classifier, best[target], target) for target in targets}

    def _counted(self, classifier: Classifier, fit: Fit, target: int) -> Measured:
        hits, n = success(classifier, fit.trigger, *self.holdout, target)
        method = f"{self.family.name} trigger inverted from scratch within size {self.radius:.4g}"
        if not n:
            return Measured(method=method)
        low, _ = clopper_pearson(hits, n, 0.90)
        high = upper_bound(hits, n, 0.95)
        return Measured(value=hits / n, low=low, high=high, n=n, level=0.95, method=method, counts=(hits,))


class _Parts:
    """Progress of one part after the other."""

    def __init__(self, progress: Progress, parts: int) -> None:
        self.progress, self.parts, self.number = progress, parts, -1

    def next(self) -> Progress:
        """The callback of the next part."""
        self.number += 1
        return self._inner

    def _inner(self, message: str, done: int, total: int) -> None:
        self.progress(message, self.number * total + done, self.parts * total)

    def silent(self, message: str, done: int, total: int) -> None:
        """Count nothing."""


def _judged(suspects: Sequence[int], kept: Sequence[ClassEvidence], after: Sequence[ClassEvidence]) -> list[int]:
    judged = list(suspects[:1])
    telling = sorted((row for row in (*kept, *after) if (row.anomaly or 0) >= TELLING), key=lambda r: -(r.anomaly or 0))
    judged += [row.target for row in telling]
    return list(dict.fromkeys(judged))[:JUDGED]


def _ordinary(sizes: dict[int, float], judged: Sequence[int]) -> list[int]:
    """Classes spread over the order of sizes, the judged ones left out."""
    others = sorted((t for t in sizes if t not in judged), key=lambda t: (sizes[t], t))
    if len(others) <= ORDINARY:
        return others
    return [others[i] for i in np.linspace(0, len(others) - 1, ORDINARY).round().astype(int)]


def _quiet_radius(
    before: Classifier,
    fit: Pair,
    holdout: Pair,
    family: TriggerFamily,
    sizes: dict[int, float],
    ordinary: Sequence[int],
    config: SearchConfig,
    seed: int,
    progress: Progress,
) -> float:
    """Largest of the tried sizes at which nine of ten ordinary classes of the suspect stay under ``QUIET``."""
    usual = float(np.median([sizes[t] for t in ordinary] or list(sizes.values())))
    radii = [share * usual for share in SHARES]
    if not ordinary:
        return radii[0]
    targets = [t for _ in radii for t in ordinary]
    radius = torch.tensor([r for r in radii for _ in ordinary])
    fits = family.fit_classes(before, *fit, targets, seed=seed, config=config, radius=radius, progress=progress)
    x, y = holdout[0][:96], holdout[1][:96]
    rates = np.array([_rate(before, one, x, y) for one in fits]).reshape(len(radii), len(ordinary))
    quiet = [r for r, row in zip(radii, rates, strict=True) if np.quantile(row, 0.9) <= QUIET]
    return max(quiet, default=radii[0])


def _rate(classifier: Classifier, fit: Fit, x: Tensor, y: Tensor) -> float:
    hits, n = success(classifier, fit.trigger, x, y, int(fit.trigger.target or 0))
    return hits / n if n else 0.0


def _floor(ordinary: Sequence[Measured], family: TriggerFamily) -> Measured | None:
    """Median over the ordinary classes; low and high are their tenth and ninetieth percentiles."""
    rates = [m.value for m in ordinary if m.value is not None]
    if not rates:
        return None
    low, middle, high = (float(v) for v in np.quantile(rates, (0.1, 0.5, 0.9)))
    method = f"median of {len(rates)} other classes, {family.name}; low and high are their 10th and 90th percentiles"
    return Measured(value=middle, low=low, high=high, n=min(m.n or 0 for m in ordinary), level=0.9, method=method)
