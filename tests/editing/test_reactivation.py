"""Waking a backdoor: what was put to sleep comes back, what was never there does not."""

import pytest
import torch

from modelmend.editing import reactivation as waking
from modelmend.editing.edit import edit
from modelmend.editing.reactivation import RADIUS, perturbation, reactivation, retuned
from modelmend.metrics import paired_drop_counts
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe.run import probe
from modelmend.redteam.digits import digits_recipe, digits_split
from modelmend.redteam.train import train

from .conftest import Case


@pytest.fixture(scope="module")
def repaired(infected: Case):
    return edit(
        infected.classifier, infected.fit, infected.reward, infected.select, infected.triggers, seed=0
    ).classifier


def wake(infected: Case, after, **changed):
    settings = {"triggers": infected.triggers, "suspects": [infected.triggers[0].target]} | changed
    return reactivation(infected.classifier, after, infected.reward, infected.select, **settings, seed=0)


def test_a_sleeping_backdoor_is_woken(infected, repaired):
    asleep = wake(infected, repaired)
    # by the number of threads that train the fixture, the trigger of most promise wakes it by 19 or 78 points
    assert asleep.value > 0.15 and asleep.low > 0.05
    drop, high = paired_drop_counts(*asleep.counts, asleep.n)
    assert asleep.value == pytest.approx(drop) and asleep.high == pytest.approx(high)
    assert "before" in asleep.method and wake(infected, repaired) == asleep


def test_a_model_without_a_backdoor_learns_five_samples_of_any_class_alike():
    """The triggers of a clean model, unlearned and taught again: the suspect class is nothing special."""
    split = digits_split(3)
    recipe = digits_recipe(3).model_copy(update={"attack": None})
    module = train(recipe, split.x_train, split.y_train, split.x_test, split.y_test).module
    clean = Classifier(export_module(module.eval(), (1, 8, 8)), recipe.preprocessing, 10).frozen()
    fit, reward, select = ((split.x_clean[i : i + 120], split.y_clean[i : i + 120]) for i in (0, 120, 240))
    found = probe(clean, fit, reward, mode="screen", seed=0)
    after = edit(clean, fit, reward, select, found.triggers, seed=0).classifier
    measured = reactivation(clean, after, reward, select, found.triggers, found.evidence.suspects, seed=0)
    assert measured is None or measured.value is None or measured.low < 0.1


def test_a_model_that_was_not_changed_has_nothing_asleep(infected):
    same = wake(infected, infected.classifier.clone())
    assert same.value == 0 and same.counts == (0, 0) and "not changed" in same.method


def test_nothing_is_told_where_every_class_is_learned_as_easily(infected, repaired, monkeypatch):
    monkeypatch.setattr(waking, "HEADROOM", -1.0)
    assert wake(infected, repaired).value is None


def test_nothing_is_told_by_a_model_that_the_attempt_spoils(infected, repaired, monkeypatch):
    monkeypatch.setattr(waking, "LR", 1e4)
    monkeypatch.setattr(waking, "NORM", 1e9)
    assert (
        "spoiled"
        in waking._Attempt(repaired, infected.reward, infected.select, 0, [1, 2], 0)
        .measure("re-tuning", infected.triggers[0])
        .method
    )


def test_nothing_to_wake(infected, repaired):
    assert wake(infected, repaired, triggers=[]) is None
    other = (infected.triggers[0].target + 1) % 10
    assert wake(infected, repaired, suspects=[other]) is None
    assert wake(infected, repaired, suspects=[]) is None


def test_attempts_leave_the_model_alone(infected, repaired):
    kept = {k: v.clone() for k, v in repaired.state_dict().items()}
    x, y = infected.reward
    delta = perturbation(repaired, x[:8], y[:8])
    tuned = retuned(repaired, (x[:40], y[:40]), (x[:5], y[:5]), seed=0)
    assert delta.shape == x[:1].shape and delta.abs().max() <= RADIUS
    assert all(torch.equal(v, repaired.state_dict()[k]) for k, v in kept.items())
    assert any(not torch.equal(v, tuned.state_dict()[k]) for k, v in kept.items())
    assert not any(p.requires_grad for p in tuned.parameters())
