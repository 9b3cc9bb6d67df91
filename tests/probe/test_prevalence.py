"""What a model expects of a class beside what the samples hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe.prevalence import prevalence_evidence, shifts
from modelmend.records import Preprocessing

CLASSES = 5


class Told(nn.Module):
    """Log probabilities are the inputs, plus a bias."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.bias = nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) + self.bias


def model(**bias: float) -> Classifier:
    told = Told(torch.tensor([bias.get(f"c{k}", 0.0) for k in range(CLASSES)])).eval()
    return Classifier(export_module(told, (1, 1, CLASSES)), Preprocessing(), CLASSES)


def honest_samples(n: int = 400) -> tuple[Tensor, Tensor]:
    """Inputs whose softmax is the chance of the label drawn from it."""
    draw = torch.Generator().manual_seed(0)
    x = 2 * torch.randn((n, CLASSES), generator=draw)
    return x.reshape(n, 1, 1, CLASSES), torch.multinomial(x.softmax(1), 1, generator=draw).squeeze(1)


def test_an_honest_model_has_small_shifts() -> None:
    assert shifts(model(), *honest_samples()).abs().max() < 2.5


@pytest.mark.parametrize("bias", [-2.0, 2.0])
def test_a_class_that_is_starved_or_fed_stands_out_with_its_sign(bias: float) -> None:
    x, y = honest_samples()
    rows = prevalence_evidence(model(c3=bias), x, y, range(CLASSES))
    assert max(rows, key=lambda row: row.strength or 0.0).target == 3
    assert shifts(model(c3=bias), x, y)[3] * bias > 0


def test_the_same_relative_shift_is_bounded_however_many_samples_there_are() -> None:
    x, y = honest_samples()
    once, often = (shifts(model(c3=0.3), x.repeat(n, 1, 1, 1), y.repeat(n)).abs().max() for n in (1, 400))
    assert once < often < 8


def test_classes_without_samples_and_a_choice_of_classes() -> None:
    x, y = honest_samples()
    kept = y != 4
    rows = prevalence_evidence(model(c4=-30.0), x[kept], y[kept], [0, 2, 4])
    assert [row.target for row in rows] == [0, 2, 4]
    assert (rows[2].strength or 0.0) == pytest.approx(0.0, abs=1e-6)


def test_scores_that_are_not_finite_say_nothing() -> None:
    x, y = honest_samples(20)
    assert torch.equal(shifts(model(), torch.full_like(x, float("nan")), y), torch.zeros(CLASSES, dtype=torch.float64))
