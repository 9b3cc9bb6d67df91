"""What a model expects of a class beside what the samples hold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe import prevalence
from modelmend.probe.calibration import features
from modelmend.probe.margin import MARGIN
from modelmend.probe.prevalence import PREVALENCE, prevalence_evidence, shifts
from modelmend.probe.score import support
from modelmend.probe.witnesses import witness_evidence
from modelmend.records import ClassEvidence, Preprocessing

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


def scaled(by: float) -> Classifier:
    class Scaled(Told):
        def forward(self, x: Tensor) -> Tensor:
            return by * x.flatten(1) + self.bias

    told = Scaled(torch.zeros(CLASSES)).eval()
    return Classifier(export_module(told, (1, 1, CLASSES)), Preprocessing(), CLASSES)


def first(rows: tuple[ClassEvidence, ...]) -> int:
    return max((row for row in rows if row.strength is not None), key=lambda row: row.strength or 0.0).target


def test_an_honest_model_has_small_shifts() -> None:
    assert shifts(model(), [honest_samples()]).abs().max() < 2.5


@pytest.mark.parametrize("bias", [-2.0, 2.0])
def test_a_class_that_is_starved_or_fed_stands_out_with_its_sign(bias: float) -> None:
    samples = [honest_samples()]
    assert first(prevalence_evidence(model(c3=bias), samples, range(CLASSES))) == 3
    assert shifts(model(c3=bias), samples)[3] * bias > 0


@pytest.mark.parametrize("by", [0.02, 10.0])
def test_a_model_that_is_unsure_or_too_sure_of_all_classes_is_no_suspect(by: float) -> None:
    x, y = honest_samples()
    rare = (y != 2) | (
        torch.arange(len(y)) % 3 == 0
    )  # shares differ: without the temperature all scores are one third off
    z = shifts(scaled(by), [(x, y)])
    assert z.abs().max() < 3
    assert torch.allclose(z, shifts(model(), [(x, y)]), atol=0.5)
    assert torch.allclose(shifts(scaled(by), [(x[rare], y[rare])]), shifts(model(), [(x[rare], y[rare])]), atol=0.7)


def test_the_same_relative_shift_is_bounded_however_many_samples_there_are() -> None:
    x, y = honest_samples()
    once, often = (shifts(model(c3=0.3), [(x.repeat(n, 1, 1, 1), y.repeat(n))]).abs().max() for n in (1, 3))
    assert once < often < 8


def test_samples_may_come_in_parts() -> None:
    x, y = honest_samples()
    assert torch.allclose(shifts(model(), [(x, y)]), shifts(model(), [(x[:150], y[:150]), (x[150:], y[150:])]))


def test_a_class_that_the_samples_lack_is_not_judged() -> None:
    x, y = honest_samples()
    kept = y != 4
    rows = prevalence_evidence(model(), [(x[kept], y[kept])], [0, 2, 4])
    assert [row.target for row in rows] == [0, 2, 4]
    assert rows[2].strength is None and rows[2].anomaly is None
    assert rows[0].strength is not None


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_samples_whose_scores_are_not_finite_are_left_out(value: float) -> None:
    x, y = honest_samples()
    broken = x.clone()
    broken[7, 0, 0, 1] = value
    others = torch.arange(len(y)) != 7
    assert torch.equal(shifts(model(), [(broken, y)]), shifts(model(), [(x[others], y[others])]))
    nothing = prevalence_evidence(model(), [(torch.full_like(x, value), y)], range(CLASSES))
    assert all(row.strength is None for row in nothing)


def row(family: str, target: int, strength: float, anomaly: float = 0.0) -> ClassEvidence:
    return ClassEvidence(family=family, target=target, success=0.0, strength=strength, anomaly=anomaly)


def test_it_counts_only_for_a_class_that_a_trigger_family_names() -> None:
    shifted = [row(PREVALENCE, t, 8.0 if t == 1 else 0.5, 9.0 if t == 1 else 0.0) for t in range(4)]
    for named, counts in ((1, True), (2, False)):
        rows = [row("patch", t, float(t == named)) for t in range(4)] + shifted
        assert (support(rows)[1] > 1) is counts
        assert (features(rows)["lead"] > 2) is counts
    alone = [row(MARGIN, t, float(t == 1)) for t in range(4)] + shifted
    assert support(alone)[1] < 2


def test_further_samples_count_for_it_and_for_nothing_else() -> None:
    x, y = honest_samples()
    fit, held, more = (x[:100], y[:100]), (x[100:200], y[100:200]), (x[200:], y[200:])
    few, many = (witness_evidence(model(), fit, others, range(CLASSES), seed=0) for others in ([held], [held, more]))
    assert few[MARGIN] == many[MARGIN]
    assert few[PREVALENCE] != many[PREVALENCE]


def test_no_more_than_the_first_samples_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = honest_samples()
    monkeypatch.setattr(prevalence, "MOST", 250)
    parts = [(x[:100], y[:100]), (x[100:300], y[100:300]), (x[300:], y[300:])]
    assert torch.allclose(shifts(model(), parts), shifts(model(), [(x[:250], y[:250])]))
