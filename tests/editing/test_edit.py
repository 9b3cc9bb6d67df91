from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from modelmend.editing.delta import relative_norms, toggle
from modelmend.editing.edit import SHARES as PARTS
from modelmend.editing.edit import EditConfig, edit, part_of_the_way
from modelmend.editing.finetune import FineTuneConfig, _starts, fine_tune
from modelmend.editing.layers import tensors, weight_layers
from modelmend.editing.quality import Quality, SelectSplit
from modelmend.editing.tuning import SHARES, TuneConfig, tune
from modelmend.errors import InputError
from modelmend.metrics import sample_passes
from modelmend.model.classifier import Classifier
from modelmend.probe.trigger import Trigger

from .conftest import Case


def _equal(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_the_edit_removes_an_unknown_backdoor_and_can_be_undone(infected: Case) -> None:
    suspect = infected.classifier
    kept = suspect.clone()
    spent = sample_passes()
    result = edit(suspect, infected.fit, infected.reward, infected.select, infected.triggers, seed=0)
    assert infected.asr(suspect) > 0.9
    assert infected.asr(result.classifier) < 0.3
    assert infected.accuracy(suspect) - infected.accuracy(result.classifier) <= 0.025
    assert result.log["edited"] and result.log["after"]["mean_success"] < result.log["before"]["mean_success"]
    assert 0 < result.log["passes"] <= sample_passes() - spent
    assert _equal(toggle(result.classifier, result.delta), kept)
    assert _equal(suspect, kept)
    assert set(result.log["layers"]) <= set(result.delta)
    json.dumps(result.log, allow_nan=False)


def test_the_scaling_alone_weakens_the_triggers_and_the_papers_form_is_reported(infected: Case) -> None:
    config = EditConfig(repair=None)
    result = edit(infected.classifier, infected.fit, infected.reward, infected.select, infected.triggers, config=config)
    assert result.log["scaled"]["mean_success"] < result.log["before"]["mean_success"]
    assert result.log["clean_form"]["form"] == "clean"
    assert result.log["choice"]["form"] in config.forms


def test_same_seed_same_edit(infected: Case) -> None:
    config = EditConfig(strengths=(0.5,), layers=(1,), repair=TuneConfig(epochs=6, lr=2e-3))
    runs = [
        edit(
            infected.classifier,
            infected.fit,
            infected.reward,
            infected.select,
            infected.triggers,
            config=config,
            seed=s,
        )
        for s in (3, 3, 4)
    ]
    assert _equal(runs[0].classifier, runs[1].classifier)
    assert not _equal(runs[0].classifier, runs[2].classifier)


def test_nothing_is_changed_when_no_trigger_works(infected: Case) -> None:
    dead = Trigger("additive", 3, {"delta": torch.zeros(1, 8, 8)})
    for triggers in ([], [dead]):
        result = edit(infected.classifier, infected.fit, infected.reward, infected.select, triggers)
        assert not result.log["edited"] and "no edit needed" in result.log["reason"]
        assert result.delta == {}
        assert _equal(result.classifier, infected.classifier)


def test_fresh_triggers_are_unlearned_in_the_second_round(infected: Case) -> None:
    calls = []

    def reprobe(classifier: object, seed: int) -> list[Trigger]:
        calls.append(seed)
        return infected.triggers[:1]

    config = EditConfig(strengths=(0.5,), layers=(1,), enough=0.0, rounds=2)
    result = edit(
        infected.classifier, infected.fit, infected.reward, infected.select, infected.triggers[:1],
        config=config, seed=5, reprobe=reprobe,
    )  # fmt: skip
    assert calls == [6]
    assert result.log["repair"][0]["triggers"] == 1


def test_fine_tuning_removes_it_too_and_costs_more(infected: Case) -> None:
    splits = (infected.fit, infected.reward, infected.select)
    tuned = fine_tune(infected.classifier, *splits, infected.triggers, config=FineTuneConfig(epochs=15))
    assert infected.asr(tuned.classifier) < 0.3
    assert infected.accuracy(infected.classifier) - infected.accuracy(tuned.classifier) <= 0.025
    assert _equal(toggle(tuned.classifier, tuned.delta), infected.classifier)
    assert not any(p.requires_grad for p in tuned.classifier.graph.parameters())
    assert set(tensors(tuned.classifier.graph)) >= set(tuned.delta)


def test_the_fallback_starts_from_the_repair_and_from_the_suspect_with_the_same_cuts(infected: Case) -> None:
    repaired = infected.classifier.clone().frozen()
    cut = weight_layers(repaired.graph)[0].weight
    with torch.no_grad():
        for parameter in repaired.graph.parameters():
            parameter.mul_(0.9)
        tensors(repaired.graph)[cut][0] = 0
    starts = _starts(repaired, infected.classifier)
    assert starts["repaired"] is repaired
    begun, suspect = tensors(starts["suspect"].graph), tensors(infected.classifier.graph)
    assert not begun[cut][0].any()
    assert torch.equal(begun[cut][1:], suspect[cut][1:])
    assert list(_starts(repaired, repaired.clone())) == ["repaired"], "the same model is not trained twice"
    only_cut = infected.classifier.clone().frozen()
    with torch.no_grad():
        tensors(only_cut.graph)[cut][0] = 0
    assert list(_starts(only_cut, infected.classifier)) == ["repaired"]

    splits = (infected.fit, infected.reward, infected.select)
    config = FineTuneConfig(epochs=2)
    log = fine_tune(repaired, *splits, infected.triggers, config=config, reference=infected.classifier).log
    costs = {name: row["cost"] for name, row in log["starts"].items()}
    assert set(costs) == {"repaired", "suspect"}
    assert costs[log["start"]] == min(costs.values())


def test_an_empty_split_is_named(infected: Case) -> None:
    empty = (infected.fit[0][:0], infected.fit[1][:0])
    with pytest.raises(InputError, match="select"):
        edit(infected.classifier, infected.fit, infected.reward, empty, infected.triggers)


@pytest.mark.parametrize(("chance", "edited"), [(0.32, False), (0.34, True)])
def test_nothing_is_unlearned_from_a_model_that_the_probe_takes_for_clean(
    infected: Case, chance: float, edited: bool
) -> None:
    config = EditConfig(strengths=(0.5,), layers=(1,), repair=TuneConfig(epochs=2, lr=2e-3))
    triggers = infected.triggers
    result = edit(
        infected.classifier, infected.fit, infected.reward, infected.select, triggers, config=config, chance=chance
    )
    assert result.log["edited"] == edited
    assert ("probability 0.32" in result.log["reason"]) != edited
    assert bool(relative_norms(infected.classifier.graph, result.classifier.graph)) == edited


def test_a_repair_step_that_goes_too_far_is_gone_part_of_the_way(infected: Case) -> None:
    split = SelectSplit(infected.select, infected.triggers, reference=infected.classifier)
    before = split.measure(infected.classifier)
    result = infected.classifier.clone()
    wild = TuneConfig(epochs=3, lr=5e-2)
    quality, rows = tune(result, infected.classifier, infected.fit, split, before=before, config=wild, seed=0)
    shares = [row["share"] for row in rows if "share" in row]
    assert shares == list(SHARES)
    harm = [row["mean_success"] + (1 - row["robust"]) / 4 for row in rows if "share" not in row]
    assert {row["epoch"] for row in rows if "share" in row} == {harm.index(min(harm))}
    assert split.measure(result).cost(before) == pytest.approx(quality.cost(before), abs=1e-3)
    assert quality.cost(before) <= before.cost(before)
    assert quality.log(before) in [
        {k: v for k, v in row.items() if k not in ("epoch", "share", "balanced")} for row in rows
    ]


@pytest.mark.parametrize(("dearer", "share"), [(0.02, 0.9), (0.05, 0.6)])
def test_of_shares_that_cost_the_same_the_one_that_leaves_least_is_taken(
    small: Classifier, dearer: float, share: float
) -> None:
    before = Quality(
        accuracy=0.9, belief=0.9, changed=0.0, samples=10**6, loss=0.3, success=(1.0,), robust=1.0, weights=(1.0,)
    )
    last = replace(before, accuracy=0.8, success=(0.5,))
    found = {s: replace(before, success=(0.9,)) for s in PARTS}
    found[0.6] = replace(before, success=(0.2,))
    found[0.9] = replace(before, accuracy=0.9 - (0.2 + dearer) / 13, success=(0.1,))
    assert found[0.9].cost(before) == pytest.approx(found[0.6].cost(before) + dearer, abs=1e-3)
    left = iter(found.values())
    split = cast(SelectSplit, SimpleNamespace(balanced=lambda *_: (next(left), {}), measure=lambda _: last))
    _, quality, chosen = part_of_the_way(small, small.clone(), split, as_is=before, before=before, quality=last)
    assert (chosen, quality) == (share, last), "what is returned was measured as it is"
    left = iter(found.values())
    little = replace(before, success=(0.21,))
    _, _, chosen = part_of_the_way(small, small.clone(), split, as_is=little, before=before, quality=last)
    assert chosen == 0.6, "a tie may not lose to doing nothing"
