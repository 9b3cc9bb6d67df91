"""Is the backdoor gone? Triggers are inverted again, from scratch, on the repaired model, and held to one size.

A family that looks for the smallest trigger always finds some; what counts is whether a *small* one still works. The
size is read off the suspect: it is the largest at which triggers of its ordinary classes still fail. So a clean model
stays low, an infected one is flipped, and what a size means does not depend on the image or the network. A class that
is accused is judged at a larger size, as long as it stands out there; one that was never named and only rises on the
repaired model, where it was seldom reached before. The other classes of the repaired model, at the same size, give the
floor (all ours; ``budget``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from modelmend.metrics import clopper_pearson, sample_passes, upper_bound
from modelmend.model.classifier import Classifier
from modelmend.probe.accused import accused as accused_classes
from modelmend.probe.budget import Pair, budgets
from modelmend.probe.calibration import probability
from modelmend.probe.choice import fitting
from modelmend.probe.families import Opened, TriggerFamily
from modelmend.probe.margin import margin_evidence
from modelmend.probe.run import SUSPECTS, look, settings
from modelmend.probe.score import first_classes, standing_out, suspicion
from modelmend.probe.search import Fit, SearchConfig
from modelmend.progress import Progress, part, silent
from modelmend.records import ClassEvidence, Evidence, Measured, Residual

JUDGING = SearchConfig(steps=80, batch=12, restarts=2)
JUDGED = 3
"""Classes at most: the first suspects, and those that stand out to the kept family or on the repaired model."""
HARMLESS = 0.08
"""No floor is measured where the upper end of the success is below this: no policy would need it."""


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
        kept: The family that handed no trigger to the repair.
        seed: Of all draws; give another than the probe had.
        progress: Called after every step.

    Returns:
        One record for each family and judged class, and the evidence of the repaired model (all families, screen).
    """
    started, spent = time.monotonic(), sample_passes()
    images = fit[0].dim() == 4
    families = {name: fitting(name, before, images) for name in (*used, kept)}
    everyone = list(range(before.num_classes))
    config = settings("screen", len(everyone))
    parts = 4 * len(families) + 1
    bar = (part(progress, number, parts) for number in range(parts))
    looks: dict[str, tuple[ClassEvidence, ...]] = {}
    again: list[ClassEvidence] = []
    for name, family in families.items():
        rows = tuple(row for row in evidence.classes if row.family == family.name)
        if {row.target for row in rows} != set(everyone):
            rows = look(before, fit, holdout, family, everyone, config, seed, next(bar)).rows
        looks[name] = rows
        again += look(after, fit, holdout, family, everyone, config, seed + 1, next(bar)).rows
    again += margin_evidence(after, fit[0], everyone, seed=seed + 1)
    found_by_probe = accused_classes(evidence) if evidence.suspected else ()
    accused = [*found_by_probe, *(row.target for row in standing_out(looks[kept]))]
    risen = [row.target for row in standing_out(again) if row.family in families]
    judged = list(dict.fromkeys([*evidence.suspects[:1], *accused, *risen]))[:JUDGED]
    named = {target for name, target in first_classes(evidence.classes).items() if name in families}
    doubted = {*accused, *(target for target in risen if not found_by_probe or target in named)}
    innocent = [target for target in judged if target not in doubted]
    found: list[Residual] = []
    for name, family in families.items():
        old, new = (family.open(model, *fit, seed=seed) for model in (before, after))
        size = budgets(
            *(old, holdout, looks[name], judged),
            accused=accused,
            innocent=innocent,
            config=config,
            seed=seed + 2,
            progress=next(bar),
        )
        was = _measure(old, holdout, size.sizes, replace(JUDGING, restarts=1), seed + 3, silent)
        now = _measure(new, holdout, size.sizes, JUDGING, seed + 3, next(bar))
        floors = {}
        for one in {size.sizes[target] for target in judged if (now[target].high or 1.0) > HARMLESS}:
            sizes = dict.fromkeys(size.ordinary, one)
            floors[one] = _floor(_measure(new, holdout, sizes, config, seed + 3, silent))
        found += [
            _record(
                family,
                name == kept,
                target,
                was[target],
                now[target],
                floors.get(size.sizes[target]),
                size.sizes[target],
            )
            for target in judged
        ]
    verdict, scores = probability(again), suspicion(again)
    return found, Evidence(
        mode="screen",
        backdoor=verdict.value >= 0.5,
        probability=verdict.value,
        calibrated=verdict.calibrated,
        suspects=tuple(sorted(scores, key=lambda t: (-scores[t], t))[:SUSPECTS]),
        families=tuple(family.name for family in families.values()),
        kept_family=kept,
        classes=tuple(again),
        seed=seed,
        seconds=round(time.monotonic() - started, 3),
        passes=sample_passes() - spent,
    )


def _measure(
    model: Opened, holdout: Pair, sizes: dict[int, float], config: SearchConfig, seed: int, progress: Progress
) -> dict[int, Measured]:
    """Success of inversion from scratch within each class's size, on the held-out samples, in the family's view."""
    if not sizes:
        return {}
    fits = model.search(list(sizes), seed=seed, config=config, radius=list(sizes.values()), progress=progress)
    return {target: _counted(model, holdout, one, target) for target, one in zip(sizes, fits, strict=True)}


def _counted(model: Opened, holdout: Pair, fit: Fit, target: int) -> Measured:
    hits, n = model.flips(fit.trigger, *holdout, target)
    method = f"{model.family.name} trigger inverted from scratch within size {fit.size:.4g}"
    if not n:
        return Measured(method=method)
    low, _ = clopper_pearson(hits, n, 0.90)
    return Measured(value=hits / n, low=low, high=upper_bound(hits, n), n=n, method=method, counts=(hits,))


def _floor(ordinary: dict[int, Measured]) -> Measured | None:
    """Median over the ordinary classes; low and high are their tenth and ninetieth percentiles."""
    rates = [m.value for m in ordinary.values() if m.value is not None]
    if not rates:
        return None
    low, middle, high = (float(v) for v in np.quantile(rates, (0.1, 0.5, 0.9)))
    method = f"median of {len(rates)} other classes; low and high are their 10th and 90th percentiles"
    return Measured(
        value=middle, low=low, high=high, n=min(m.n or 0 for m in ordinary.values()), level=0.9, method=method
    )


def _record(
    family: TriggerFamily,
    kept: bool,
    target: int,
    before: Measured,
    after: Measured,
    floor: Measured | None,
    budget: float,
) -> Residual:
    excess = 0.0 if after.high is not None and after.high <= HARMLESS else None
    if after.value is not None and floor is not None and floor.high is not None:
        excess = max(0.0, after.value - floor.high)
    return Residual(
        family=family.name,
        role="kept" if kept else "used",
        target=target,
        before=before,
        after=after,
        floor=floor,
        excess=excess,
        budget=budget,
    )
