"""Waking a backdoor: what was put to sleep comes back, what was never there does not."""

import pytest
import torch

from modelmend.editing.edit import edit
from modelmend.editing.reactivation import RADIUS, perturbation, reactivation, retuned
from modelmend.metrics import paired_drop_counts

from .conftest import Case


@pytest.fixture(scope="module")
def repaired(infected: Case):
    return edit(
        infected.classifier, infected.fit, infected.reward, infected.select, infected.triggers, seed=0
    ).classifier


def wake(infected: Case, after, **changed):
    settings = {"triggers": infected.triggers, "suspects": [infected.triggers[0].target]} | changed
    return reactivation(infected.classifier, after, infected.reward, infected.select, **settings, seed=0)


def test_a_sleeping_backdoor_is_woken_and_an_open_one_is_not_counted(infected, repaired):
    asleep, awake = wake(infected, repaired), wake(infected, infected.classifier)
    assert asleep.value > 0.2 and asleep.low > 0
    assert awake.value < asleep.value
    drop, high = paired_drop_counts(*asleep.counts, asleep.n)
    assert asleep.value == pytest.approx(drop) and asleep.high == pytest.approx(high)
    assert "before" in asleep.method and wake(infected, repaired) == asleep


def test_nothing_to_wake(infected, repaired):
    assert wake(infected, repaired, triggers=[]) is None
    other = (infected.triggers[0].target + 1) % 10
    assert wake(infected, repaired, suspects=[other]) is None


def test_attempts_leave_the_model_alone(infected, repaired):
    kept = {k: v.clone() for k, v in repaired.state_dict().items()}
    x, y = infected.reward
    delta = perturbation(repaired, x[:8], y[:8])
    tuned = retuned(repaired, (x[:40], y[:40]), (x[:5], y[:5]), seed=0)
    assert delta.shape == x[:1].shape and delta.abs().max() <= RADIUS
    assert all(torch.equal(v, repaired.state_dict()[k]) for k, v in kept.items())
    assert any(not torch.equal(v, tuned.state_dict()[k]) for k, v in kept.items())
    assert not any(p.requires_grad for p in tuned.parameters())
