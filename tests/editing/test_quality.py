"""What a candidate is taken to have cost."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from modelmend.editing.edit import starting_point
from modelmend.editing.layers import tensors, weight_layers
from modelmend.editing.quality import Kept, Quality, SelectSplit, strongest
from modelmend.editing.tuning import _draw_triggered
from modelmend.errors import InputError
from modelmend.model.classifier import Classifier
from modelmend.probe.trigger import Trigger

from .conftest import Case

START = Quality(
    accuracy=0.7, belief=0.74, changed=0.0, samples=200, loss=0.8, success=(0.9,), robust=0.3, weights=(1.0,)
)


def test_nothing_changed_costs_nothing() -> None:
    assert START.drop(START) == 0.0


def test_lucky_labels_do_not_hide_that_belief_fell() -> None:
    lucky = replace(START, accuracy=0.71, belief=0.67, changed=0.19)
    assert 0.02 < lucky.drop(START) < 0.035
    assert lucky.cost(START) > replace(lucky, belief=0.73).cost(START)


def test_unlucky_labels_alone_cost_little() -> None:
    unlucky = replace(START, accuracy=0.67, belief=0.735, changed=0.1)
    assert unlucky.drop(START) < 0.01


@pytest.mark.parametrize(("accuracy", "drop"), [(0.7, 0.0), (0.64, 0.06), (0.75, 0.0)])
def test_many_labels_decide(accuracy: float, drop: float) -> None:
    many = replace(START, accuracy=accuracy, belief=0.64, changed=0.15, samples=1_000_000)
    assert many.drop(START) == pytest.approx(drop, abs=1e-3)


def test_belief_that_did_not_fall_does_not_overrule_many_labels() -> None:
    sharpened = replace(START, accuracy=0.6, changed=0.15, samples=1_000_000)
    assert sharpened.drop(START) > 0.09


def test_without_a_finite_belief_the_labels_decide() -> None:
    broken = replace(START, accuracy=0.1, belief=float("nan"), changed=1.0)
    assert broken.drop(START) == pytest.approx(0.6)


def test_belief_is_that_of_the_reference(infected: Case) -> None:
    split = SelectSplit(infected.select, [], reference=infected.classifier)
    own = split.measure(infected.classifier)
    assert own.changed == 0.0
    assert own.belief > own.accuracy - 0.2
    scrambled = infected.classifier.clone()
    with torch.no_grad():
        for parameter in scrambled.graph.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    worse = split.measure(scrambled)
    assert worse.belief < own.belief - 0.3
    assert worse.changed > 0.5


def test_a_trigger_of_little_weight_is_not_paid_for_with_accuracy() -> None:
    start = replace(START, success=(0.9, 0.9), weights=(0.95, 0.05))
    natural_gone = replace(start, success=(0.9, 0.0), accuracy=0.68, belief=0.70, changed=0.1)
    backdoor_gone = replace(natural_gone, success=(0.0, 0.9))
    assert natural_gone.cost(start) > start.cost(start) > backdoor_gone.cost(start)
    assert backdoor_gone.mean == pytest.approx(0.045)


def test_success_counts_by_the_chance_that_there_is_a_backdoor() -> None:
    gone = replace(START, success=(0.0,), robust=0.7, accuracy=0.665, belief=0.67, changed=0.1)
    assert gone.cost(START) < START.cost(START)
    unlikely = replace(START, chance=0.1)
    assert replace(gone, chance=0.1).cost(unlikely) > unlikely.cost(unlikely)


def test_the_weights_are_those_of_the_evidence(infected: Case) -> None:
    x = infected.select[0]
    flat = torch.zeros_like(x[0])
    strong = Trigger("additive", 0, {"delta": flat + 0.1}, lead=9.0)
    weak = Trigger("patch", 0, {"delta": flat + 0.1}, lead=-2.0)
    quality = SelectSplit(infected.select, [strong, weak]).measure(infected.classifier)
    assert quality.weights == pytest.approx(((9 / 9.1 + 0.5) / 2, (0.1 / 9.1 + 0.5) / 2))
    assert quality.mean == pytest.approx(sum(w * s for w, s in zip(quality.weights, quality.success, strict=True)))


def test_the_most_telling_triggers_are_kept_in_the_order_given(infected: Case) -> None:
    flat = torch.zeros_like(infected.select[0][0])
    useless = [Trigger("patch", 0, {"delta": flat}, lead=0.2) for _ in range(3)]
    telling = [replace(t, lead=5.0) for t in infected.triggers[:2]]
    given = [useless[0], telling[0], *useless[1:], *telling[1:]]
    kept = strongest([infected.classifier], given, infected.fit, len(telling))
    assert [id(t) for t in kept] == [id(t) for t in telling]
    assert strongest([infected.classifier], given, infected.fit, 9) == given


def test_triggers_are_drawn_by_weight(infected: Case) -> None:
    flat = torch.zeros_like(infected.select[0][0])
    known = [
        Trigger("additive", 0, {"delta": flat + 1.0}, lead=9.0),
        Trigger("patch", 0, {"delta": flat - 1.0}, lead=-2.0),
    ]
    split = SelectSplit(infected.select, known)
    hit = _draw_triggered(flat.expand(4000, *flat.shape) + 0.5, split, torch.Generator().manual_seed(0))
    assert hit is not None
    bright = float((hit.flatten(1).mean(1) > 0.9).float().mean())
    assert bright == pytest.approx(split.weights[0], abs=0.03)
    assert _draw_triggered(flat[None], SelectSplit(infected.select, []), torch.Generator()) is None


@pytest.mark.parametrize("chance", [-0.1, 1.1, float("nan")])
def test_a_chance_that_is_none_is_refused(infected: Case, chance: float) -> None:
    with pytest.raises(InputError, match="chance"):
        SelectSplit(infected.select, [], chance=chance)


def test_what_candidates_are_judged_by_is_logged(infected: Case) -> None:
    split = SelectSplit(infected.select, infected.triggers[:2], chance=0.75)
    told = json.loads(json.dumps(split.log(), allow_nan=False))
    assert told["chance"] == 0.75
    assert [row["family"] for row in told["triggers"]] == [t.family for t in infected.triggers[:2]]
    assert sum(row["weight"] for row in told["triggers"]) == pytest.approx(1, abs=1e-3)


def test_a_class_that_is_given_up_costs_more_than_the_same_loss_spread_out() -> None:
    classes = tuple(Kept(accuracy=0.9, belief=0.9, changed=0.0, samples=60) for _ in range(10))
    start = replace(START, classes=classes)
    gone = replace(start, accuracy=0.67, belief=0.71, changed=0.1)
    spread = replace(gone, classes=tuple(replace(k, accuracy=0.87, belief=0.87, changed=0.03) for k in classes))
    lost = replace(classes[0], accuracy=0.6, belief=0.6, changed=0.3)
    one = replace(gone, classes=(lost, *classes[1:]))
    assert one.class_drop(start) > 0.15 > 0.05 > spread.class_drop(start)
    assert one.cost(start) > spread.cost(start) + 0.3
    assert spread.cost(start) == pytest.approx(gone.harm + 3 * gone.drop(start) + 10 * max(0, gone.drop(start) - 0.01))


def test_a_boundary_that_moves_is_a_loss_of_its_class_though_belief_hardly_falls() -> None:
    full = Kept(accuracy=0.9, belief=0.9, changed=0.0, samples=40)
    moved = replace(full, accuracy=0.65, belief=0.84, changed=0.28)
    assert moved.drop_of_class(full) > 0.1 > 1.5 * moved.drop(full)
    assert replace(moved, belief=1.0).drop_of_class(full) > 0.1
    assert replace(full, accuracy=0.92, belief=0.84).drop_of_class(full) < 0.02
    assert replace(moved, belief=float("nan")).drop_of_class(full) == pytest.approx(0.25 * 40 / 60)


def test_few_samples_of_a_class_say_little() -> None:
    full = Kept(accuracy=1.0, belief=0.9, changed=0.0, samples=60)
    lost = replace(full, accuracy=0.5, belief=0.5, changed=0.5)
    many, few = ([replace(k, samples=n) for k in (full, lost)] for n in (60, 2))
    drops = [replace(START, classes=(b,)).class_drop(replace(START, classes=(a,))) for a, b in (many, few)]
    assert drops[0] > 0.2 > 0.1 > drops[1]


def test_each_class_is_counted_on_both_splits(infected: Case) -> None:
    split = SelectSplit(infected.select, infected.triggers, reference=infected.classifier, repair=infected.fit)
    own = split.measure(infected.classifier)
    assert own == split.measure(infected.classifier.clone())
    assert own.samples == len(infected.select[1])
    assert sum(k.samples for k in own.classes) == len(infected.select[1]) + len(infected.fit[1])
    assert len(own.success) == len(infected.triggers)
    alone = SelectSplit(infected.select, infected.triggers, reference=infected.classifier).measure(infected.classifier)
    assert replace(own, classes=()) == replace(alone, classes=())


def forgetting(classifier: Classifier, lost: int) -> Classifier:
    """The model with one class that it never answers."""
    result = classifier.clone().frozen()
    last = weight_layers(result.graph)[-1]
    bias = tensors(result.graph)[last.bias or ""]
    with torch.no_grad():
        bias[lost] -= 100
    return result


def test_a_forgotten_class_is_seen_and_named_in_the_log(infected: Case) -> None:
    split = SelectSplit(infected.select, [], reference=infected.classifier, repair=infected.fit)
    before = split.measure(infected.classifier)
    layer = weight_layers(infected.classifier.graph)[-1]
    for lost in (0, 7):
        forgetful = forgetting(infected.classifier, lost)
        found = split.measure(forgetful)
        assert split.measurer(infected.classifier, layer.node)(forgetful) == found
        gone = [now.drop(was) for now, was in zip(found.classes, before.classes, strict=True)]
        assert {i % 10 for i in sorted(range(20), key=lambda i: -gone[i])[:2]} == {lost}
        told = found.log(before)
        assert told["class_drop"] > 0.3
        assert told["cost"] > 4 * (told["class_drop"] - 0.05)


def test_a_class_without_samples_is_not_priced(infected: Case) -> None:
    x, y = infected.select
    split = SelectSplit((x[y != 3], y[y != 3]), [], reference=infected.classifier)
    before = split.measure(infected.classifier)
    assert before.classes[3].samples == 0
    found = split.measure(forgetting(infected.classifier, 3))
    assert found.classes[3].drop(before.classes[3]) == 0
    assert found.class_drop(before) < 0.05


def test_the_model_as_it_is_pays_for_the_class_that_it_has_lost(infected: Case) -> None:
    split = SelectSplit(infected.select, infected.triggers, reference=infected.classifier, repair=infected.fit)
    as_is, before = starting_point(forgetting(infected.classifier, 7), infected.classifier, split)
    assert as_is.class_drop(before) > 0.3
    assert as_is.cost(before) > before.cost(before) + 1
    own, same = starting_point(infected.classifier, infected.classifier, split)
    assert own == same
    assert own.drop(same) == own.class_drop(same) == 0
