"""Prevalence: does the model expect a class more, or less, often than clean samples hold it?

An attack that labels poisoned samples of all classes as its own teaches the model that the class is common: where a clean
sample is hard to tell, the model now leans to it. A clean-label attack (SIG) spoils most samples of its class, so that the
class is learned by the trigger and its clean samples go to others. Either leaves a mark that no trigger need be searched
for. Of a model that is well calibrated in the large, the expected count of a class, the sum of its probabilities over the
samples, is its true count up to chance. Ours; the spread is that of a Poisson-binomial count. A network that is too sure, or
not sure enough, of all classes alike is no suspect for that: one temperature (arXiv 1706.04599) is fitted first.

It trusts the labels, and that the clean samples hold the classes as the training set did: a class that is much rarer in
one of them is shifted, too. So it counts only for a class that a trigger family names as well (``score.corroborated``).
With two similar classes the one may be shifted as far as the other; their sign is not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
FEWEST = 5
"""A class of fewer samples is not judged: it may be missing from them by choice."""
MOST = 1200
"""Samples that are looked at."""
TEMPERATURES = torch.logspace(-2, 2, 81, dtype=torch.float64)
"""Tried ones; the samples' negative log likelihood decides."""
BATCH = 256

Pair = tuple[Tensor, Tensor]


def prevalence_evidence(
    classifier: Classifier, samples: Sequence[Pair], targets: Sequence[int]
) -> tuple[ClassEvidence, ...]:
    """Size of each class's shift, compared over the classes; a witness, it yields no trigger.

    Args:
        classifier: The model; not changed.
        samples: Clean samples ``(N, ...)`` and labels ``(N,)``, in parts.
        targets: Classes to compare; those of fewer than ``FEWEST`` samples have no strength.
    """
    z = shifts(classifier, samples)[list(targets)].abs()
    indices = anomaly_index(z.numpy(), NOISE)
    known = [bool(value.isfinite()) for value in z]
    return tuple(
        ClassEvidence(
            family=PREVALENCE, target=t, success=None, strength=s if ok else None, anomaly=float(a) if ok else None
        )
        for t, s, a, ok in zip(targets, z.tolist(), indices, known, strict=True)
    )


@torch.no_grad()
def shifts(classifier: Classifier, samples: Sequence[Pair]) -> Tensor:
    """Signed z-scores ``(K,)``: expected less true count, in standard deviations; above zero the class is overrated.

    ``(sum_n p_nk - n_k) / sqrt(sum_n p_nk (1 - p_nk) + PSEUDO + (HONEST n_k)^2)``; NaN for a class of fewer than ``FEWEST``
    samples. Samples whose scores are not finite are left out.
    """
    looked_at = list(_first(samples, MOST))
    y = torch.cat([labels.cpu() for _, labels in looked_at])
    logits = torch.cat([classifier(part).double().cpu() for x, _ in looked_at for part in torch.split(x, BATCH)])
    finite = logits.isfinite().all(1)
    logits, y = logits[finite], y[finite]
    p = (logits / _temperature(logits, y)).softmax(1)
    counts = torch.bincount(y, minlength=classifier.num_classes).double()
    spread = ((p * (1 - p)).sum(0) + PSEUDO + (HONEST * counts).square()).sqrt()
    return torch.where(counts >= FEWEST, (p.sum(0) - counts) / spread, torch.nan)


def _first(samples: Sequence[Pair], most: int) -> Iterator[Pair]:
    for x, y in samples:
        if most > 0:
            yield x[:most], y[:most]
            most -= len(y)


def _temperature(logits: Tensor, y: Tensor) -> Tensor:
    """The most likely temperature, for scores whose spread is one unit."""
    if not len(y):
        return torch.ones(())
    unit = logits.std(1).mean().clamp_min(1e-12) if logits.shape[1] > 1 else torch.ones(())
    losses = torch.stack([cross_entropy(logits / (unit * t), y) for t in TEMPERATURES])
    return unit * TEMPERATURES[losses.argmin()]
