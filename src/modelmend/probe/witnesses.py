"""Witnesses: evidence on the classes that comes without a trigger, and so hands none to the repair."""

from __future__ import annotations

from collections.abc import Sequence

from modelmend.model.classifier import Classifier
from modelmend.probe import margin, prevalence
from modelmend.probe.margin import MARGIN, margin_evidence
from modelmend.probe.prevalence import PREVALENCE, Pair, prevalence_evidence
from modelmend.progress import Progress, silent
from modelmend.records import ClassEvidence

NOISES = {MARGIN: margin.NOISE, PREVALENCE: prevalence.NOISE}
"""Witness -> spread of its strengths that means nothing."""


def witness_evidence(
    classifier: Classifier,
    fit: Pair,
    others: Sequence[Pair],
    targets: Sequence[int],
    *,
    seed: int,
    progress: Progress = silent,
) -> dict[str, tuple[ClassEvidence, ...]]:
    """Rows of every witness.

    Args:
        classifier: The model; not changed.
        fit: Clean samples and labels.
        others: More of them; no trigger is fitted, so all of them may count.
        targets: Classes to compare.
        seed: Of all draws.
        progress: Called after every step.
    """
    return {
        MARGIN: margin_evidence(classifier, fit[0], targets, seed=seed, progress=progress),
        PREVALENCE: prevalence_evidence(classifier, [fit, *others], targets),
    }
