from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from modelmend.probe.families import FAMILIES
from modelmend.probe.families.family import Opened
from modelmend.probe.families.wave import WaveForm, try_waves
from modelmend.probe.search import SearchConfig

SIDE = 16


def carrier(down: int, across: int, phase: float) -> Tensor:
    """A unit wave ``(H, W)`` of so many periods."""
    places = torch.arange(SIDE) / SIDE
    return torch.cos(2 * math.pi * (down * places[:, None] + across * places) + phase)


def opens_at(wave: Tensor, target: int) -> object:
    """A model that answers class 0, and ``target`` where a sample holds enough of the wave."""

    def forward(changed: Tensor, clean: Tensor) -> Tensor:
        del clean
        seen = (changed - changed.mean((-3, -2, -1), keepdim=True)).mean(1).mul(wave).mean((-2, -1))
        logits = torch.zeros(len(changed), 4)
        logits[:, 0] = 1.0
        logits[:, target] = 80 * seen
        return logits

    return forward


def samples(channels: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return 0.5 + 0.02 * torch.randn(40, channels, SIDE, SIDE, generator=generator), torch.arange(40) % 4


def test_the_start_of_a_search_is_the_wave_that_the_model_answers_to() -> None:
    x, y = samples()
    form = WaveForm(x)
    start = try_waves(opens_at(carrier(3, -2, 0.3), 2), form, x, y)
    found = start([2], torch.Generator())["wave"][0]
    assert found[:2].tolist() == [3, -2]
    assert abs(math.remainder(float(found[2]) - 0.3, 2 * math.pi)) < math.pi / 3


def test_the_search_finds_a_hidden_wave_much_smaller_than_what_the_other_classes_need() -> None:
    x, y = samples(1)
    family = FAMILIES["wave"]
    form, forward = WaveForm(x), opens_at(carrier(2, 1, 1.0), 3)
    opened = Opened(family, forward, form, x, y, try_waves(forward, form, x, y))
    fits = opened.search([1, 3], seed=0, config=SearchConfig(steps=60))
    assert fits[0].capped and not fits[1].capped
    assert fits[1].size < 0.1 < fits[0].size
    hits, n = opened.flips(fits[1].trigger, x, y, 3)
    assert hits / n > 0.7


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
    assert float(periods.abs().max()) <= max(1, min(shape[1:]) // 4)
    assert form.parts(form.start(2, torch.Generator().manual_seed(0)))["delta"].shape == (2, *shape)


def test_a_radius_lowers_a_wave_and_never_raises_it() -> None:
    form = WaveForm(torch.rand(4, 1, 8, 8))
    parameters = form.sized(torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), 0.2)
    parameters["height"][1] = -0.05
    form.project(parameters, torch.tensor([0.1, 0.1]))
    assert parameters["height"].flatten().tolist() == pytest.approx([0.1, -0.05])
