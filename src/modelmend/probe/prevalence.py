"""Prevalence: does the model expect a class more, or less, often than clean samples hold it?

An attack that labels poisoned samples of all classes as its own teaches the model that the class is common: where a clean
sample is hard to tell, the model now leans to it. A clean-label attack (SIG) spoils most samples of its class, so that the
class is learned by the trigger and its clean samples go to others. Either leaves a mark that no trigger need be searched
for. Of a model that is well calibrated in the large, the expected count of a class, the sum of its probabilities over the
samples, is its true count up to chance. Ours; the spread is that of a Poisson-binomial count. A network that is too sure, or
not sure enough, of all classes alike is no suspect for that: one temperature (arXiv 1706.04599) is fitted first.

It trusts the labels, and that the clean samples hold the classes as the training set did: a class that is much rarer in
one of them is shifted, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from modelmend.model.classifier import Classifier
from modelmend.probe.anomaly import anomaly_index
from modelmend.records import ClassEvidence

PREVALENCE = "prevalence"
NOISE = 0.4
"""Difference between the z-scores of two classes that means nothing."""
HONEST = 0.05
"""Relative difference of the expected count that clean models have at any number of samples."""
PSEUDO = 1.0
"""Added to the variance, so that a class of few samples, all of them sure, says little."""
TEMPERATURES = torch.logspace(-0.25, 0.65, 41, dtype=torch.float64)
"""Tried ones; the samples' negative log likelihood decides."""
BATCH = 256


def prevalence_evidence(
    classifier: Classifier, x: Tensor, y: Tensor, targets: Sequence[int]
) -> tuple[ClassEvidence, ...]:
    """Size of each class's shift, compared over the classes; a witness, it yields no trigger.

    Args:
        classifier: The model; not changed.
        x: Clean samples ``(N, ...)``.
        y: Labels ``(N,)``.
        targets: Classes to compare.
    """
    strengths = shifts(classifier, x, y)[list(targets)].abs().tolist()
    indices = anomaly_index(strengths, NOISE)
    return tuple(
        ClassEvidence(family=PREVALENCE, target=t, success=None, strength=s, anomaly=float(a))
        for t, s, a in zip(targets, strengths, indices, strict=True)
    )


@torch.no_grad()
def shifts(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Signed z-scores ``(K,)``: expected less true count, in standard deviations; above zero the class is overrated.

    ``(sum_n p_nk - n_k) / sqrt(sum_n p_nk (1 - p_nk) + PSEUDO + (HONEST n_k)^2)``. A class whose scores are not finite
    has shift 0.
    """
    classes = classifier.num_classes
    y = y.cpu()
    logits = torch.cat([classifier(part.to(classifier.device)).double().cpu() for part in torch.split(x, BATCH)])
    p = (logits / _temperature(logits, y)).softmax(1)
    counts = torch.bincount(y, minlength=classes)[:classes].double()
    spread = ((p * (1 - p)).sum(0) + PSEUDO + (HONEST * counts).square()).sqrt()
    return ((p.sum(0) - counts) / spread).nan_to_num(0.0, math.inf, -math.inf)


def _temperature(logits: Tensor, y: Tensor) -> Tensor:
    losses = torch.stack([cross_entropy(logits / t, y) for t in TEMPERATURES])
    return TEMPERATURES[losses.nan_to_num(math.inf).argmin()]
