"""The shares in which classes are answered, and what the repair samples give away."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from modelmend.editing.balance import output_bias, prior_shift, put_shift
from modelmend.editing.layers import tensors
from modelmend.editing.quality import SelectSplit
from modelmend.model.classifier import Classifier

from .conftest import Case, wrap


def test_scores_are_shifted_to_the_wanted_shares() -> None:
    logits = 3 * torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    wanted = torch.tensor([0.4, 0.3, 0.2, 0.1])
    shift = prior_shift(logits, wanted)
    torch.testing.assert_close((logits + shift).softmax(1).mean(0), wanted, atol=1e-3, rtol=0)
    assert float(shift.sum()) == pytest.approx(0, abs=1e-4)


def test_a_class_that_is_never_answered_has_a_finite_shift() -> None:
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    shift = prior_shift(logits, torch.tensor([1.0, 0.0, 0.0]))
    assert bool(shift.isfinite().all())
    assert float(shift.abs().max()) <= 10


@pytest.mark.parametrize("logits", [torch.zeros(0, 3), torch.full((2, 3), torch.nan), torch.full((2, 3), torch.inf)])
def test_nothing_is_shifted_without_finite_scores(logits: Tensor) -> None:
    assert prior_shift(logits, torch.full((3,), 1 / 3)).tolist() == [0, 0, 0]


class Head(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.first = nn.Linear(4, 3)
        self.last = nn.Linear(3, 3, bias=kind != "without")
        self.kind = kind
        if kind == "shared":
            self.last.bias = self.first.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x))
        return {"softmax": lambda: out.softmax(1), "scaled": lambda: 2 * out}.get(self.kind, lambda: out)()


@pytest.mark.parametrize(
    ("kind", "has"), [("plain", True), ("softmax", True), ("without", False), ("shared", False), ("scaled", False)]
)
def test_only_a_bias_that_is_added_to_the_scores_is_one(kind: str, has: bool) -> None:
    classifier = wrap(Head(kind), (4,), 3)
    name = output_bias(classifier)
    assert (name is not None) == has
    if name is not None:
        assert tensors(classifier.graph)[name].shape == (3,)


@pytest.fixture
def split(infected: Case) -> SelectSplit:
    return SelectSplit(infected.select, infected.triggers, reference=infected.classifier, repair=infected.fit)


def test_answers_that_moved_to_a_class_are_put_back(infected: Case, split: SelectSplit) -> None:
    before, moved = split.measure(infected.classifier), infected.classifier.clone().frozen()
    name = output_bias(moved)
    assert name is not None
    push = torch.zeros(10)
    push[3] = 6.0
    put_shift(moved, {name: push})
    plain = split.measure(moved)
    level, shift = split.balanced(moved, before)
    assert plain.accuracy < before.accuracy - 0.05
    assert level.accuracy == pytest.approx(before.accuracy, abs=0.01)
    assert float(shift[name][3] - shift[name][4]) == pytest.approx(-6.0, abs=1.0)
    put_shift(moved, shift)
    assert split.measure(moved).cost(before) == pytest.approx(level.cost(before), abs=1e-3)


def test_answers_stay_where_it_costs_less(infected: Case, split: SelectSplit) -> None:
    """The class that the triggers lead to is answered less often, and they with it: shares put back bring them back."""
    before, mute = split.measure(infected.classifier), infected.classifier.clone().frozen()
    name = output_bias(mute)
    assert name is not None
    push = torch.zeros(10)
    push[infected.targets[0]] = -1.0
    put_shift(mute, {name: push})
    own = split.measure(mute)
    assert own.cost(before) < before.cost(before)
    kept, shift = split.balanced(mute, before)
    assert (kept, shift) == (own, {})


def test_without_a_reference_nothing_is_put_back(infected: Case) -> None:
    alone = SelectSplit(infected.select, infected.triggers)
    before = alone.measure(infected.classifier)
    assert alone.balanced(infected.classifier, before) == (before, {})


def test_what_only_the_repair_samples_gain_is_a_leak(infected: Case, split: SelectSplit) -> None:
    start = split.measure(infected.classifier)
    assert start.leak == 0.0
    n, labels = len(infected.select[1]), torch.cat([infected.select[1], infected.fit[1]])
    learned = torch.zeros(len(labels), 10)
    learned[torch.arange(n, len(labels)), labels[n:]] = 9.0
    assert split._tell_apart(learned) == 1.0
    assert split._tell_apart(torch.zeros(len(labels), 10)) == 0.5
    assert split._tell_apart(torch.full((len(labels), 10), torch.nan)) == 0.5
    told = replace(start, leak=0.06)
    assert told.cost(start) == pytest.approx(start.cost(start) + 0.4)
    assert replace(start, leak=0.02).cost(start) == start.cost(start)
    assert replace(start, leak=-0.05).cost(start) == start.cost(start)


def test_a_leak_is_measured_where_a_model_learned_its_samples(infected: Case) -> None:
    model: Classifier = infected.classifier.clone()
    x, y = infected.fit
    learned = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(0))]
    split = SelectSplit(infected.select, [], reference=infected.classifier, repair=(x, learned))
    parameters = list(model.graph.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), learned).backward()
        optimizer.step()
    assert split.measure(model).leak > 0.2
    assert split.measure(infected.classifier).leak == 0.0
