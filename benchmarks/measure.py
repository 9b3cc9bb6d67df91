"""The final measurement: true ACC, ASR and RA on half B, before and after; only it opens a sealed trigger."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from benchmarks.cases import Case
from modelmend.metrics import accuracy, attack_success, robust_accuracy
from modelmend.model.classifier import Classifier
from modelmend.redteam.sealed import PURPOSE


@dataclass(frozen=True)
class Figures:
    """Rates 0..1; ASR and RA are ``None`` for a clean model."""

    acc: float
    asr: float | None
    ra: float | None


def final_measurement(case: Case, classifier: Classifier) -> Figures:
    """Measure a finished model on the samples that no method has seen."""
    acc = accuracy(classifier.predict(case.x_final), case.y_final)
    if case.sealed is None:
        return Figures(acc, None, None)
    attack = case.sealed.open(purpose=PURPOSE)
    hit: Tensor = classifier.predict(attack.apply(case.x_final))
    asr = attack_success(hit, case.y_final, attack.target(case.y_final))
    return Figures(acc, asr, robust_accuracy(hit, case.y_final))


def class_accuracy(case: Case, classifier: Classifier) -> tuple[float, ...]:
    """Accuracy of each class that has samples among those that no method has seen."""
    y, answers = case.y_final, classifier.predict(case.x_final)
    return tuple(accuracy(answers[y == k], y[y == k]) for k in y.unique().tolist())
