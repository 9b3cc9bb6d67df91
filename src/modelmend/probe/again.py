"""Triggers found again on a half-repaired model, hardly larger than what a backdoor needs on the suspect.

A search for the smallest trigger that works always ends with one: where the backdoor is gone, with a large one that
would flip any network. To unlearn that as well costs the accused class its clean samples. So the search is held to the
size at which the verdict judges the class (``budget``): some more than that of the suspect's own trigger, because what is
left of a backdoor needs a larger one, and a share of what its ordinary classes need; and to the families that named the
class: to the others its triggers are natural ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from modelmend.model.classifier import Classifier
from modelmend.probe.budget import Pair, own_size
from modelmend.probe.choice import fitting
from modelmend.probe.run import settings
from modelmend.probe.score import first_classes, leads
from modelmend.probe.trigger import Trigger
from modelmend.records import Evidence


def find_again(
    classifier: Classifier, fit: Pair, evidence: Evidence, targets: Sequence[int], *, seed: int
) -> list[Trigger]:
    """One trigger for each target and each family that named it; how well it works is for the caller to see.

    A target that no family named is searched by all. Triggers carry the lead that their class had on the suspect.

    Args:
        classifier: The half-repaired model; not changed.
        fit: Clean samples ``(N, ...)`` in 0..1 and labels ``(N,)`` that triggers are fitted on.
        evidence: What the probe found on the suspect.
        targets: Classes to search.
        seed: Of all draws.
    """
    found: list[Trigger] = []
    first = first_classes([row for row in evidence.classes if row.family in evidence.families])
    ahead = leads(evidence.classes)
    for name in evidence.families:
        sizes = {row.target: row.size for row in evidence.classes if row.family == name and row.size is not None}
        named = [target for target in targets if first.get(name) == target or target not in first.values()]
        searched = [target for target in named if target in sizes]
        if not searched:
            continue
        others = [size for target, size in sizes.items() if target not in targets] or list(sizes.values())
        usual = float(np.median(others))
        radii = [own_size(sizes[target], usual) for target in searched]
        opened = fitting(name, classifier, fit[0].dim() == 4).open(classifier, *fit, seed=seed)
        config = settings("screen", len(searched))
        fits = opened.search(searched, seed=seed, config=config, radius=radii)
        for target, one in zip(searched, fits, strict=True):
            found.append(replace(one.trigger, lead=ahead.get((name, target))))
    return found
