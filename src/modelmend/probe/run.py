"""Is there a backdoor, and which class does it lead to? The trigger is not known."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor

from modelmend.errors import InputError, SamplesError
from modelmend.metrics import sample_passes
from modelmend.model.classifier import Classifier
from modelmend.probe.calibration import probability
from modelmend.probe.choice import choose
from modelmend.probe.families import TriggerFamily
from modelmend.probe.score import class_evidence, standing_out, success, suspicion
from modelmend.probe.search import Fit, SearchConfig
from modelmend.probe.trigger import Trigger
from modelmend.progress import Progress, silent
from modelmend.records import ClassEvidence, Evidence

Mode = Literal["full", "screen"]
Pair = tuple[Tensor, Tensor]

SUSPECTS = 3
MANY = 16
"""From so many classes on, all are searched with small batches first and the suspects again with large ones."""
TELLING = 2.0
"""Anomaly from which a candidate of the first suspect is handed on; the most telling one always is."""
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
) -> ProbeResult:
    """Search every class for triggers with every used family, and compare the classes.

    Args:
        classifier: The suspect, or a half-repaired model; not changed.
        fit: Clean samples ``(N, ...)`` in 0..1 and labels ``(N,)`` that triggers are fitted on.
        holdout: Others that their success is measured on.
        mode: ``full``, or ``screen`` with fewer and smaller steps.
        families: Names of those to use; default ``choice.USED``.
        keep: Name of the family kept back for the verdict; not run here.
        seed: Of all draws.
        progress: Called after every step.
        classes: Search these only (they are then the suspects); default all.

    Raises:
        InputError: unknown family, class or mode.
        SamplesError: too few samples, or not floating point.
    """
    started, spent = time.monotonic(), sample_passes()
    _check(classifier, fit, holdout, mode, classes)
    used, kept = choose(classifier, fit[0].dim() == 4, families, keep)
    targets = list(range(classifier.num_classes)) if classes is None else sorted(set(classes))
    config = settings(mode, len(targets))
    again = mode == "full" and len(targets) > MANY
    parts = len(used) * (2 if again else 1)
    rows: list[ClassEvidence] = []
    fits: dict[tuple[str, int], Fit] = {}
    for number, family in enumerate(used):
        found = look(classifier, fit, holdout, family, targets, config, seed, _part(progress, number, parts))
        rows += found.rows
        fits |= {(family.name, target): value for target, value in found.fits.items()}
    scores = suspicion(rows)
    suspects = sorted(targets, key=lambda t: (-scores.get(t, 0.0), t))[: SUSPECTS if classes is None else None]
    handed = _handed_on(rows, suspects, all_of=classes is not None)
    if again:
        handed = _sharpened(classifier, fit, holdout, used, handed, fits, seed, progress)
    found_probability = probability(rows)
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
    return ProbeResult(evidence, [fits[row.family, row.target].trigger for row in handed])


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
    rates: dict[int, float] = {}
    for candidate, target in zip(found, targets, strict=True):
        flipped, counted = success(classifier, candidate.trigger, x, y, target)
        rates[target] = flipped / counted if counted else math.nan
    fits = dict(zip(targets, found, strict=True))
    return Look(class_evidence(family, fits, rates), fits)


def settings(mode: str, classes: int) -> SearchConfig:
    """Search settings of a mode, for so many classes."""
    if mode == "full" and classes <= MANY:
        return SearchConfig(steps=100, batch=16, restarts=2)
    return SearchConfig(steps=60, batch=8)


def _sharpened(
    classifier: Classifier,
    fit: Pair,
    holdout: Pair,
    used: Sequence[TriggerFamily],
    handed: Sequence[ClassEvidence],
    fits: dict[tuple[str, int], Fit],
    seed: int,
    progress: Progress,
) -> list[ClassEvidence]:
    """Search the candidates that are handed on once more, with the settings for few classes; ``fits`` is updated.

    Anomalies stay those of the first search, which treated all classes alike.
    """
    better: dict[tuple[str, int], ClassEvidence] = {}
    for number, family in enumerate(used):
        targets = [row.target for row in handed if row.family == family.name]
        if not targets:
            continue
        part = _part(progress, len(used) + number, 2 * len(used))
        found = look(classifier, fit, holdout, family, targets, settings("full", 1), seed, part)
        fits |= {(family.name, target): value for target, value in found.fits.items()}
        better |= {(row.family, row.target): row for row in found.rows}
    return [better[r.family, r.target].model_copy(update={"anomaly": r.anomaly}) for r in handed]


def _handed_on(rows: Sequence[ClassEvidence], suspects: Sequence[int], *, all_of: bool) -> list[ClassEvidence]:
    """Candidates worth repairing against: the first suspect's telling ones, and those that are alone ahead."""
    order = {target: number for number, target in enumerate(suspects)}
    mine = [row for row in rows if row.target in order]
    mine.sort(key=lambda row: (order[row.target], -(row.anomaly or 0.0)))
    if all_of:
        return mine
    alone = {(row.family, row.target) for row in standing_out(rows)}
    telling = [
        row
        for row in mine
        if (row.target == suspects[0] and (row.anomaly or 0.0) >= TELLING) or (row.family, row.target) in alone
    ]
    return telling or mine[:1]


def _part(progress: Progress, number: int, parts: int) -> Progress:
    def inner(message: str, done: int, total: int) -> None:
        progress(message, number * total + done, parts * total)

    return inner


def _check(classifier: Classifier, fit: Pair, holdout: Pair, mode: str, classes: Sequence[int] | None) -> None:
    if mode not in ("full", "screen"):
        raise InputError(f"unknown mode {mode!r}", field="mode", fix="full or screen")
    if classes is not None and any(not 0 <= c < classifier.num_classes for c in classes):
        raise InputError("a class is out of range", field="classes", fix=f"0..{classifier.num_classes - 1}")
    for name, (x, y) in (("fit", fit), ("holdout", holdout)):
        if len(x) < 2 or len(x) != len(y):
            raise SamplesError(
                f"{len(x)} samples and {len(y)} labels to probe with", field=name, fix="give more samples"
            )
        if not x.is_floating_point():
            raise SamplesError(f"samples are {x.dtype}, triggers need floating point", field=name)
