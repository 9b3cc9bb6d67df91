from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from modelmend.probe.families import FAMILIES
from modelmend.probe.families.family import Opened
from modelmend.probe.families.wave import WaveForm, try_waves
from modelmend.probe.search import Forward, SearchConfig

SIDE = 16


def carrier(down: float, across: float, phase: float) -> Tensor:
    """A unit wave ``(H, W)`` of so many periods."""
    places = torch.arange(SIDE) / SIDE
    return torch.cos(2 * math.pi * (down * places[:, None] + across * places) + phase)


def opens_at(wave: Tensor, target: int, need: float) -> Forward:
    """A model that answers by the mean, and ``target`` where a sample holds more than so much of the wave (its RMS)."""

    def forward(changed: Tensor, clean: Tensor) -> Tensor:
        del clean
        seen = changed.mean(1).mul(wave).mean((-2, -1)) * math.sqrt(2)
        logits = torch.zeros(len(changed), 4)
        logits[:, 0] = 1.0
        logits[:, target] = 1.0 + 40 * (seen - need)
        return logits

    return forward


def samples(channels: int = 3) -> tuple[Tensor, Tensor]:
    """Nearly gray images, sorted by class."""
    generator = torch.Generator().manual_seed(0)
    return 0.5 + 0.02 * torch.randn(80, channels, SIDE, SIDE, generator=generator), torch.arange(80) // 20


def opened(forward: Forward, x: Tensor, y: Tensor) -> Opened:
    form = WaveForm(x)
    return Opened(FAMILIES["wave"], forward, form, x, y, try_waves(forward, form, x, y))


def test_the_start_of_a_search_is_the_wave_that_the_model_answers_to() -> None:
    x, y = samples()
    start = try_waves(opens_at(carrier(3, -2, 0.3), 2, 0.06), WaveForm(x), x, y)
    found = start(2, 0)["wave"][0]
    assert found[:2].tolist() == [3, -2]
    assert abs(math.remainder(float(found[2]) - 0.3, 2 * math.pi)) < math.pi / 3


def test_a_second_search_starts_elsewhere() -> None:
    x, y = samples()
    start = try_waves(opens_at(carrier(3, -2, 0.3), 2, 0.06), WaveForm(x), x, y)
    assert not torch.equal(start(2, 0)["wave"], start(2, 1)["wave"])


@pytest.mark.parametrize("target", [1, 3])
@pytest.mark.parametrize("need", [0.03, 0.06, 0.09, 0.2])
@pytest.mark.parametrize("periods", [(2, 1), (3.5, -1)])
def test_the_search_finds_a_hidden_wave_at_the_size_that_it_needs(
    target: int, need: float, periods: tuple[float, float]
) -> None:
    x, y = samples(1)
    model = opened(opens_at(carrier(*periods, 1.0), target, need), x, y)
    (fit,) = model.search([target], seed=0, config=SearchConfig(steps=100))
    assert not fit.capped
    assert fit.size == pytest.approx(need, rel=0.25)
    hits, n = model.flips(fit.trigger, x, y, target)
    assert hits / n > 0.7


def test_a_class_that_no_wave_leads_to_runs_into_the_largest_size() -> None:
    x, y = samples(1)
    (fit,) = opened(opens_at(carrier(2, 1, 1.0), 3, 0.06), x, y).search([1], seed=0, config=SearchConfig(steps=60))
    assert fit.capped


@pytest.mark.parametrize("target", [1, 3])
def test_what_is_left_of_a_wave_is_found_within_the_size_at_which_the_verdict_looks(target: int) -> None:
    x, y = samples(1)
    model = opened(opens_at(carrier(2, -3, 2.0), target, 0.08), x, y)
    fits = model.search([target], seed=3, config=SearchConfig(steps=80, batch=12, restarts=2), radius=[0.084])
    hits, n = model.flips(fits[0].trigger, x, y, target)
    assert hits / n > 0.5


def test_the_size_of_a_wave_is_the_root_mean_square_of_what_it_adds() -> None:
    form = WaveForm(torch.rand(4, 3, SIDE, SIDE))
    delta = form.parts(form.sized(torch.tensor([[2.0, 3.0, 0.4]]), 0.07))["delta"]
    assert float(delta.square().mean().sqrt()) == pytest.approx(0.07, rel=1e-4)
    assert torch.equal(delta[:, 0], delta[:, 2])  # the same in every channel


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 8, 20), (1, 28, 28), (3, 224, 224)])
def test_waves_fit_images_of_any_shape(shape: tuple[int, ...]) -> None:
    form = WaveForm(torch.rand(4, *shape))
    periods = form.lattice()
    assert 1 <= len(periods) <= 110
    assert not any(torch.equal(a, -b) for a in periods for b in periods)
    assert periods.abs().amax(0).tolist() == [max(1, min(8, side // 4)) for side in shape[1:]]
    delta = form.parts(form.sized(torch.cat([periods, torch.full((len(periods), 1), 0.7)], 1), 0.1))["delta"]
    assert delta.shape == (len(periods), *shape)
    assert delta.square().mean((1, 2, 3)).sqrt().tolist() == pytest.approx([0.1] * len(periods), rel=1e-3)


def test_a_radius_lowers_a_wave_and_never_raises_it() -> None:
    form = WaveForm(torch.rand(4, 1, 8, 8))
    parameters = form.sized(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), 0.2)
    parameters["height"][1] = -0.05
    form.project(parameters, torch.tensor([0.1, 0.1]))
    assert parameters["height"].flatten().tolist() == pytest.approx([0.1, -0.05])
