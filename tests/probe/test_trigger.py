from __future__ import annotations

import math

import pytest
import torch

from modelmend.errors import ArtifactError
from modelmend.probe.families import FAMILIES
from modelmend.probe.families.spectral import SpectralForm, hartley
from modelmend.probe.form import triggered
from modelmend.probe.trigger import Trigger


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_a_trigger_of_every_family_survives_a_round_trip_through_tensors(name: str) -> None:
    x = torch.rand(5, 3, 12, 12)
    form = FAMILIES[name].form(x)
    parameters = form.start(2, torch.Generator().manual_seed(3))
    form.project(parameters, torch.tensor([0.3 * form.largest, 0.6 * form.largest]))
    parts = {part: value[1] for part, value in form.parts(parameters).items()}
    trigger = Trigger(name, 7, parts)
    again = Trigger.from_state(trigger.family, trigger.target, trigger.state())
    assert torch.equal(trigger(x), again(x))
    assert not torch.equal(trigger(x), x)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_searching_form_and_trigger_compute_the_same_change(name: str) -> None:
    x = torch.rand(4, 3, 12, 12)
    form = FAMILIES[name].form(x)
    parameters = form.start(3, torch.Generator().manual_seed(3))
    form.project(parameters, torch.full((3,), 0.5 * form.largest))
    together = triggered(form, parameters, x.expand(3, *x.shape))
    for k in range(3):
        alone = Trigger(name, k, {part: value[k] for part, value in form.parts(parameters).items()})(x)
        assert torch.allclose(together[k], alone, atol=1e-5)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_projection_keeps_every_form_within_the_radius(name: str) -> None:
    x = torch.rand(4, 3, 12, 12)
    form = FAMILIES[name].form(x)
    parameters = form.start(3, torch.Generator().manual_seed(3))
    radius = torch.tensor([0.05, 0.2, 0.5]) * form.largest
    form.project(parameters, radius)
    assert bool((form.size(parameters) <= radius * 1.001).all())


def test_triggered_images_stay_in_range() -> None:
    trigger = Trigger("additive", 0, {"delta": torch.full((1, 4, 4), 0.9)})
    out = trigger(torch.rand(3, 1, 4, 4))
    assert float(out.max()) <= 1


def test_triggers_of_tables_stay_in_the_range_seen() -> None:
    x = torch.randn(50, 6) * 10
    form = FAMILIES["additive"].form(x)
    parameters = form.start(1, torch.Generator().manual_seed(0))
    parameters["delta"] *= 100
    out = Trigger("additive", 0, {name: part[0] for name, part in form.parts(parameters).items()})(x)
    assert bool((out >= x.amin(0)).all()) and bool((out <= x.amax(0)).all())


@pytest.mark.parametrize("state", [{}, {"mask": torch.zeros(1)}, {"code": torch.zeros(1)}, {"inner": torch.zeros(1)}])
def test_tensors_that_are_no_trigger_are_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ArtifactError):
        Trigger.from_state("patch", 1, state)


def test_the_hartley_transform_is_its_own_inverse_and_keeps_lengths() -> None:
    waves = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(hartley(hartley(waves)), waves, atol=1e-5)
    assert torch.allclose(hartley(waves).norm(), waves.norm(), rtol=1e-5)


def test_the_spectral_form_counts_a_single_wave_by_its_root_mean_square_and_keeps_to_low_frequencies() -> None:
    form = SpectralForm(torch.rand(4, 1, 16, 16))
    wave = 0.1 * torch.sin(2 * torch.pi * 3 * torch.arange(16) / 16).expand(1, 1, 16, 16)
    parameters = {"waves": hartley(wave)}
    assert float(form.size(parameters)) == pytest.approx(0.1 / math.sqrt(2), rel=1e-3)
    noisy = {"waves": torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))}
    form.project(noisy, torch.tensor([0.05]))
    assert float(form.size(noisy)) == pytest.approx(0.05, rel=1e-3)
    assert float(noisy["waves"][0, 0, 8, 8]) == 0.0
    kept = noisy["waves"].clone()
    form.project(noisy, torch.tensor([0.5]))
    assert torch.equal(noisy["waves"], kept)
