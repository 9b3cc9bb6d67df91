"""Does the model know these samples? If not, the preprocessing is the first suspect."""

from __future__ import annotations

import copy
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from modelmend.errors import SamplesError
from modelmend.metrics import accuracy
from modelmend.records import Preprocessing
from modelmend.samples.data import Samples

CHANCE_LEVEL = 1e-3
"""One-sided p-value against chance above which the accuracy counts as chance. Ours."""

_TRIED = 256
_BETTER = 0.15

C = TypeVar("C", bound="Predictor")


class Predictor(Protocol):
    """What is needed of a classifier (``model.classifier.Classifier`` fits)."""

    preprocessing: Preprocessing
    num_classes: int

    def predict(self, x: Tensor, batch_size: int = 256) -> Tensor:
        """Top-1 class ``(N,)``."""
        ...


COMMON: dict[str, Preprocessing] = {
    "--input-range 0,1 without --mean/--std": Preprocessing(),
    "--input-range 0,255": Preprocessing(input_range=(0.0, 255.0)),
    "--mean 0.5 --std 0.5": Preprocessing(mean=(0.5,), std=(0.5,)),
    "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225": Preprocessing(
        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    "--mean 0.4914,0.4822,0.4465 --std 0.247,0.2435,0.2616": Preprocessing(
        mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)
    ),
    "--mean 0.1307 --std 0.3081": Preprocessing(mean=(0.1307,), std=(0.3081,)),
}
"""Preprocessing that is common in training code, by the options that name it."""


def check_accuracy(classifier: Predictor, samples: Samples) -> float:
    """Accuracy on the clean samples, 0..1.

    Chance is the larger of ``1 / classes`` and the share of the largest class, so that a model that always answers
    with that class does not count as knowing the samples.

    Raises:
        SamplesError: the accuracy is not better than chance (binomial test, p > 0.001). Names, if one is found, a
            common preprocessing or another label order under which it would be high. It is never applied.
    """
    from scipy.stats import binom

    n = len(samples)
    predicted = classifier.predict(samples.x)
    value = accuracy(predicted, samples.y)
    largest = int(torch.bincount(samples.y).max()) / n
    chance = min(max(1 / classifier.num_classes, largest), 1 - 1e-9)
    hits = int((predicted == samples.y).sum())
    if float(binom.sf(hits - 1, n, chance)) <= CHANCE_LEVEL:
        return value
    hint = suggest(classifier, samples, predicted)
    raise SamplesError(
        f"accuracy {value:.0%} on {n} clean samples is near chance ({chance:.0%}): the preprocessing is probably wrong",
        where=samples.source,
        field="mean/std/input_range",
        fix=hint or "check --mean, --std, --input-range and the order of the labels; or give more samples",
    )


def suggest(classifier: Predictor, samples: Samples, predicted: Tensor) -> str | None:
    """What would make the accuracy high: a common preprocessing, or another order of the labels; None if nothing."""
    at = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))[:_TRIED]
    few = samples.subset(at)
    largest = int(torch.bincount(few.y).max()) / len(few)
    best_name, best = "", max(accuracy(predicted[at], few.y), 1 / classifier.num_classes, largest) + _BETTER
    if samples.kind == "image":
        for name, other in COMMON.items():
            if len(other.mean) not in {1, few.x.shape[1]}:
                continue
            value = accuracy(_with(classifier, other).predict(few.x), few.y)
            if value > best:
                best_name, best = name, value
    if best_name:
        return f"with {best_name} the accuracy would be {best:.0%}: give these options if the model was trained so"
    return _other_order(predicted, samples, classifier.num_classes)


def _other_order(predicted: Tensor, samples: Samples, classes: int) -> str | None:
    """Whether renumbering the labels would make them agree with the predictions (best one-to-one assignment)."""
    from scipy.optimize import linear_sum_assignment

    table = torch.zeros(classes, classes)
    table.index_put_((samples.y, predicted), torch.ones(len(samples)), accumulate=True)
    given, meant = linear_sum_assignment(table.numpy(), maximize=True)
    value = float(table[given, meant].sum()) / len(samples)
    if value < 0.5 or value < 3 / classes:
        return None
    moved = [f"{a} -> {b}" for a, b in zip(given, meant, strict=True) if a != b and table[a, b]]
    return (
        f"the labels are probably in another order than the model's outputs: renumbered ({', '.join(moved[:6])}"
        f"{', ...' if len(moved) > 6 else ''}) the accuracy would be {value:.0%}"
    )


def _with(classifier: C, other: Preprocessing) -> C:
    """A view of the classifier with another preprocessing; shares the weights."""
    view = copy.copy(classifier)
    view.preprocessing = other
    return view
