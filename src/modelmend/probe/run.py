"""Is there a backdoor, and which class does it lead to? The trigger is not known."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

from torch import Tensor

from modelmend.errors import InputError, SamplesError
from modelmend.metrics import sample_passes
from modelmend.model.classifier import Classifier
from modelmend.probe.accused import possible
from modelmend.probe.calibration import probability
from modelmend.probe.choice import choose
from modelmend.probe.families import TriggerFamily
from modelmend.probe.score import class_evidence, first_classes, leads, standing_out, success, suspicion
from modelmend.probe.search import Fit, SearchConfig
from modelmend.probe.trigger import Trigger
from modelmend.probe.witnesses import witness_evidence
from modelmend.progress import Progress, part, silent
from modelmend.records import ClassEvidence, Evidence

Mode = Literal["full", "screen"]
Pair = tuple[Tensor, Tensor]

SUSPECTS = 3
FEW, MANY = 4, 16
"""So few classes are searched with larger batches in a full search, more than ``MANY`` with small ones even there."""
HOLDOUT = 256
"""Held-out samples that a candidate is tried on, at most."""


@dataclass(frozen=True)
class ProbeResult:
    """What the probe found.

    Attributes:
        evidence: The record.
        triggers: Candidates for the suspects, most suspicious class first; ``evidence.triggers`` describes each.
    """

    evidence: Evidence
    triggers: list[Trigger]


def probe(
    classifier: Classifier,
    fit: Pair,
    holdout: Pair,
    *,
    mode: str = "full",
    families: Sequence[str] | None = None,
    keep: str | None = None,
    seed: int = 0,
    progress: Progress = silent,
    classes: Sequence[int] | None = None,
    more: Pair | None = None,
) -> ProbeResult:
    """Search every class for triggers with every family, and compare the classes.

    Args:
        classifier: The suspect, or a half-repaired model; not changed.
        fit: Clean samples ``(N, ...)`` in 0..1 and labels ``(N,)`` that triggers are fitted on.
        holdout: Others that their success is measured on.
        mode: ``screen`` searches once, with small batches; ``full`` also searches the candidates that it hands on anew,
            with larger ones. The comparison of the classes is the same: a second look at all of them tells no better
            (docs/experiments.md), and the calibration is that of the first.
        families: Names of those to use; default ``choice.USED``.
        keep: Name of the family kept back for the verdict. Like those of ``witnesses``, it only helps to
            say whether there is a backdoor and to which class it leads, and hands no trigger to the repair.
        seed: Of all draws.
        progress: Called after every step.
        classes: Search these only, with the used families (they are then the suspects); default all.
        more: Further clean samples and labels, for the witness that searches nothing (``probe.prevalence``).

    Raises:
        InputError: unknown family, class or mode.
        SamplesError: too few samples, or not floating point.
    """
    started, spent = time.monotonic(), sample_passes()
    _check(classifier, {"fit": fit, "holdout": holdout} | ({} if more is None else {"more": more}), mode, classes)
    used, kept = choose(classifier, fit[0].dim() == 4, families, keep)
    targets = list(range(classifier.num_classes)) if classes is None else sorted(set(classes))
    full = mode == "full"
    seeing = [*used, kept] if classes is None else used
    parts = iter(range(2 * len(seeing) + 1))
    looks: dict[str, Look] = {}

    def search(family: TriggerFamily, classes: Sequence[int], config: SearchConfig, seed: int) -> Look:
        return look(classifier, fit, holdout, family, classes, config, seed, bar())

    def bar() -> Progress:
        return part(progress, next(parts), (2 if full else 1) * len(seeing) + 1)

    if classes is None:
        others = [holdout] if more is None else [holdout, more]
        witnesses = witness_evidence(classifier, fit, others, targets, seed=seed, progress=bar())
        looks |= {name: Look(rows, {}) for name, rows in witnesses.items()}
    for family in seeing:
        looks[family.name] = search(family, targets, settings("screen", len(targets)), seed)
    rows = [row for found in looks.values() for row in found.rows]
    fits = {(name, target): one for name, found in looks.items() for target, one in found.fits.items()}
    scores = suspicion(rows)
    suspects = sorted(targets, key=lambda t: (-scores.get(t, 0.0), t))[: SUSPECTS if classes is None else None]
    found_probability = probability(rows)
    wanted = possible(rows, suspects, found_probability.value)
    mine = [row for row in rows if row.family in {family.name for family in used}]
    handed = _handed_on(mine, suspects, wanted, all_of=classes is not None)
    if full:
        for family in used:
            again = [row.target for row in handed if row.family == family.name]
            if not again:
                continue
            sharp = search(family, again, settings("full", len(again)), seed + 2)
            for row in sharp.rows:
                fits[family.name, row.target] = sharp.fits[row.target]
                handed = [_sharper(old, row) for old in handed]
    evidence = Evidence(
        mode=cast(Mode, mode),
        backdoor=found_probability.value >= 0.5,
        probability=found_probability.value,
        calibrated=found_probability.calibrated,
        suspects=tuple(suspects),
        families=tuple(family.name for family in used),
        kept_family=kept.name,
        classes=tuple(rows),
        triggers=tuple(
            {
                "family": row.family,
                "target": row.target,
                "size": row.size,
                "success": row.success,
                "anomaly": row.anomaly,
                "seed": seed,
            }
            for row in handed
        ),
        seed=seed,
        seconds=round(time.monotonic() - started, 3),
        passes=sample_passes() - spent,
    )
    ahead = leads(rows) if classes is None else {}
    triggers = [
        replace(fits[row.family, row.target].trigger, lead=ahead.get((row.family, row.target))) for row in handed
    ]
    return ProbeResult(evidence, triggers)


@dataclass(frozen=True)
class Look:
    """What one family found: evidence rows and fits by target."""

    rows: tuple[ClassEvidence, ...]
    fits: dict[int, Fit]


def look(
    classifier: Classifier,
    fit: Pair,
    holdout: Pair,
    family: TriggerFamily,
    targets: Sequence[int],
    config: SearchConfig,
    seed: int,
    progress: Progress = silent,
) -> Look:
    """Run one family over the targets and measure the candidates on the held-out samples."""
    opened = family.open(classifier, *fit, seed=seed)
    found = opened.search(targets, seed=seed, config=config, progress=progress)
    limit = max(48, min(HOLDOUT, 4 * HOLDOUT // max(1, len(targets) // 4)))
    x, y = holdout[0][:limit], holdout[1][:limit]
    rates: dict[int, float | None] = {}
    for candidate, target in zip(found, targets, strict=True):
        flipped, counted = success(classifier, candidate.trigger, x, y, target)
        rates[target] = flipped / counted if counted else math.nan
    fits = dict(zip(targets, found, strict=True))
    return Look(class_evidence(family, fits, rates), fits)


def settings(mode: str, classes: int) -> SearchConfig:
    """Search settings of a mode, for so many classes."""
    if mode == "full" and classes <= FEW:
        return SearchConfig(steps=100, batch=16)
    if mode == "full" and classes <= MANY:
        return SearchConfig(steps=80, batch=12)
    return SearchConfig(steps=60, batch=8)


def _sharper(old: ClassEvidence, new: ClassEvidence) -> ClassEvidence:
    """The new search's figures if it is about the same class; anomalies compare all classes and stay."""
    same = (old.family, old.target) == (new.family, new.target)
    return new.model_copy(update={"anomaly": old.anomaly}) if same else old


def _handed_on(
    rows: Sequence[ClassEvidence], suspects: Sequence[int], wanted: Sequence[int], *, all_of: bool
) -> list[ClassEvidence]:
    """Candidates worth repairing against: of every family whose first class is wanted, and those that are alone ahead.

    A wanted class that no family names first has its most anomalous candidate.
    """
    order = {target: number for number, target in enumerate(suspects)}
    mine = [row for row in rows if row.target in order]
    mine.sort(key=lambda row: (order[row.target], -(row.anomaly or 0.0)))
    if all_of:
        return mine
    first = first_classes(rows)
    alone = {(row.family, row.target) for row in standing_out(rows)}
    most = [next(row for row in mine if row.target == target) for target in wanted]
    return [
        row
        for row in mine
        if (row.target in wanted and first[row.family] == row.target)
        or (row.family, row.target) in alone
        or any(row is one for one in most)
    ]


def _check(classifier: Classifier, samples: Mapping[str, Pair], mode: str, classes: Sequence[int] | None) -> None:
    if mode not in ("full", "screen"):
        raise InputError(f"unknown mode {mode!r}", field="mode", fix="full or screen")
    if classes is not None and any(not 0 <= c < classifier.num_classes for c in classes):
        raise InputError("a class is out of range", field="classes", fix=f"0..{classifier.num_classes - 1}")
    for name, (x, y) in samples.items():
        if len(x) < (1 if name == "more" else 2) or len(x) != len(y):
            raise SamplesError(
                f"{len(x)} samples and {len(y)} labels to probe with", field=name, fix="give more samples"
            )
        if not x.is_floating_point():
            raise SamplesError(f"samples are {x.dtype}, triggers need floating point", field=name)
        if int(y.min()) < 0 or int(y.max()) >= classifier.num_classes:
            raise SamplesError("a label is out of range", field=name, fix=f"0..{classifier.num_classes - 1}")
