from __future__ import annotations

import json

import pytest
import torch

from modelmend.metrics import accuracy
from modelmend.model.groups import zero_groups
from modelmend.probe.run import probe
from modelmend.probe.trigger import Trigger
from modelmend.pruning import PruneResult, PruningConfig, onp, prune
from modelmend.pruning.onp import demanding, nodes
from modelmend.pruning.ppo import PPOConfig
from modelmend.pruning.refresh import class_growth
from modelmend.steps.measuring import explainability
from tests.pruning.toy import planted_environment

QUICK = PruningConfig(ppo=PPOConfig(iterations=8, masks=120), refreshes=1, explain=False)


def run(case, config: PruningConfig = QUICK, seed: int = 0) -> PruneResult:  # type: ignore[no-untyped-def]
    targets = sorted({t.target for t in case.triggers})

    def reprobe(classifier, seed: int):  # type: ignore[no-untyped-def]
        return probe(classifier, case.fit, case.reward, mode="screen", classes=targets, seed=seed).triggers

    return prune(
        case.classifier, case.fit, case.reward, case.select, case.triggers, config=config, seed=seed, reprobe=reprobe
    )


@pytest.fixture(scope="module")
def result(infected) -> PruneResult:  # type: ignore[no-untyped-def]
    return run(infected, QUICK.model_copy(update={"explain": True}))


def test_the_backdoor_shrinks_and_accuracy_stays(infected, result) -> None:  # type: ignore[no-untyped-def]
    x, y = infected.test
    attack = infected.infected.sealed.open(purpose="final-measurement")
    others = y != attack.target_class
    triggered = attack.apply(x[others])

    def rate(classifier) -> float:  # type: ignore[no-untyped-def]
        return float((classifier.predict(triggered) == attack.target_class).float().mean())

    assert result.cut
    assert rate(result.classifier) < rate(infected.classifier) - 0.3
    drop = accuracy(infected.classifier.predict(x), y) - accuracy(result.classifier.predict(x), y)
    assert drop <= 0.025


def test_weights_are_zeroed_on_a_clone_only(infected, result) -> None:  # type: ignore[no-untyped-def]
    by_hand = infected.classifier.clone()
    zero_groups(by_hand.graph, result.cut)
    suspect, pruned = infected.classifier.graph.state_dict(), result.classifier.graph.state_dict()
    for name, tensor in by_hand.graph.state_dict().items():
        assert torch.equal(tensor, pruned[name])
    assert any(not torch.equal(pruned[name], suspect[name]) for name in suspect)


def test_a_clean_network_is_left_alone(clean) -> None:  # type: ignore[no-untyped-def]
    found = run(clean)
    x, y = clean.test
    drop = accuracy(clean.classifier.predict(x), y) - accuracy(found.classifier.predict(x), y)
    assert not found.cut and drop <= 0.003


def test_same_seed_same_cuts_and_log(infected) -> None:  # type: ignore[no-untyped-def]
    config = QUICK.model_copy(update={"refreshes": 0, "ppo": PPOConfig(iterations=2)})
    first, again, other = run(infected, config), run(infected, config), run(infected, config, seed=5)
    assert first.log == again.log and first.candidate == again.candidate
    assert first.log != other.log


def test_the_log_shows_the_gain_over_the_best_rule(result) -> None:  # type: ignore[no-untyped-def]
    text = json.dumps(result.log, allow_nan=False)
    assert json.loads(text) == result.log
    rows = [row for row in result.log if row["event"] == "iteration"]
    assert all(row["gain_over_rule"] >= 0 for row in rows)
    assert {"graph", "rules", "iteration", "refresh", "candidate", "chosen"} <= {row["event"] for row in result.log}
    json.dumps(result.record(), allow_nan=False)


def test_the_scorecard_gets_the_explainability_of_the_cuts(result) -> None:  # type: ignore[no-untyped-def]
    measured = explainability(json.loads(json.dumps(result.record())))
    assert measured is not None
    told = result.explanation
    assert (measured.value, measured.low, measured.high) == (told["score"], told["low"], told["high"])
    assert explainability({"cut": []}) is None
    assert explainability({"cut": [], "explanation": {"cards": [], "score": None}}) is None


def test_the_final_choice_considers_other_sizes_the_rules_and_earlier_rounds(result) -> None:  # type: ignore[no-untyped-def]
    considered = {tuple(row["cut"]) for row in result.log if row["event"] == "candidate"}
    assert len({len(cut) for cut in considered}) > 2 and () in considered
    for row in result.log:
        if row["event"] == "rules":
            assert {tuple(sorted(rule["cut"])) for rule in row["rules"]} <= considered
        if row["event"] == "best of round":
            assert tuple(row["cut"]) in considered


@pytest.mark.parametrize("pretrained", [False, True])
def test_only_a_policy_that_learned_elsewhere_is_told_what_is_found(infected, monkeypatch, pretrained) -> None:  # type: ignore[no-untyped-def]
    told = []

    def learn(env, policy, config, **_):  # type: ignore[no-untyped-def]
        told.append(config.experience)
        return []

    monkeypatch.setattr(onp, "learn", learn)
    run(infected, QUICK.model_copy(update={"pretrained": pretrained, "refreshes": 0}))
    assert told == [pretrained]


def test_the_best_mask_of_each_size_is_found() -> None:
    env = planted_environment()
    cut = torch.eye(env.groups, dtype=torch.bool)[:6]
    archive = env.archive
    archive.judge(cut)
    archive.judge(cut[:3] | cut[3:6])
    found = archive.frugal(12)
    best = {size: max((c for c in archive.best(99) if len(c.cut) == size), key=lambda c: c.reward) for size in (1, 2)}
    assert [c.reward for c in found] == [best[len(c.cut)].reward for c in found]
    assert len(found) == len({len(c.cut) for c in found}) and archive.frugal(0) == []


def test_without_triggers_nothing_is_cut(infected) -> None:  # type: ignore[no-untyped-def]
    found = prune(infected.classifier, infected.fit, infected.reward, infected.select, [], seed=0)
    assert not found.cut and found.log[0]["event"] == "nothing to do"
    assert found.classifier is not infected.classifier


def test_every_cut_has_its_evidence(infected, result) -> None:  # type: ignore[no-untyped-def]
    explanation = result.explanation
    assert {card["group"] for card in explanation["cards"]} == {group.index for group in result.cut}
    assert [row["step"] for row in explanation["path"]] == list(range(1, len(result.cut) + 1))
    assert explanation["path"][-1]["reward"] == pytest.approx(result.candidate.reward, abs=1e-5)
    assert 0 <= explanation["low"] <= explanation["score"] <= explanation["high"] <= 1
    assert explanation["share"] > explanation["random_share"]


def test_leave_one_out_is_the_effect_of_restoring_the_group(result) -> None:  # type: ignore[no-untyped-def]
    card = result.explanation["cards"][0]
    keep = torch.ones(2, len(result.groups), dtype=torch.bool)
    keep[:, [g.index for g in result.cut]] = False
    keep[1, card["group"]] = True
    judge = result.evidence.judge
    outcome = judge.patiently(keep)
    assert bool(outcome.whole.all())
    back = (outcome.success[1] - outcome.success[0]) @ judge.weight
    assert card["leave_one_out"]["success_without_it"] == pytest.approx(float(back), abs=1e-5)


def test_the_path_ends_at_the_probe_success_of_the_chosen_cuts(result) -> None:  # type: ignore[no-untyped-def]
    probe = result.explanation["probe"]
    assert [row["after"] for row in probe] == list(result.candidate.success)
    assert sum(row["weight"] for row in probe) == pytest.approx(1.0, abs=1e-5)
    left = sum(row["weight"] * row["after"] for row in probe)
    assert result.explanation["path"][-1]["success"] == pytest.approx(left, abs=1e-5)
    assert left < sum(row["weight"] * row["before"] for row in probe) - 0.1


def test_the_picture_is_drawn_from_the_stored_graph(result, tmp_path) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("matplotlib")
    from modelmend.pruning.explanation import stored_graph
    from modelmend.pruning.picture import draw

    graph = json.loads(json.dumps(stored_graph(result.evidence), allow_nan=False))
    assert [graph["layers"][node["layer"]] for node in graph["nodes"]] == [g.layer for g in result.groups]
    draw(graph, result.explanation, tmp_path / "search.svg")
    assert (tmp_path / "search.svg").stat().st_size > 5000


def test_more_is_asked_where_the_network_is_probably_clean() -> None:
    config = PruningConfig()
    assert demanding(config, None) == demanding(config, 0.5) == config
    strict = demanding(config, 0.2)
    assert (strict.least_reward, strict.least_growth) == (config.doubtful_reward, config.doubtful_growth)
    own = config.model_copy(update={"least_reward": 0.9, "least_growth": 3.0})
    assert demanding(own, 0.2) == own


def test_streams_are_taken_apart_unless_the_settings_say_otherwise(infected) -> None:  # type: ignore[no-untyped-def]
    apart, tied = (nodes(infected.classifier, (1, 8, 8), PruningConfig(branches=b)) for b in (True, False))
    assert {g.kind for g in apart} == {"channel", "branch"}
    assert {g.kind for g in tied} == {"channel", "stream"} and len(apart) > len(tied)


def test_growth_weighs_the_families_by_their_lead() -> None:
    ratios = {("patch", 1): 4.0, ("warp", 1): 1.0}
    assert class_growth(ratios) == pytest.approx(2.0)
    telling = [Trigger("patch", 1, {}, lead=0.1), Trigger("warp", 1, {}, lead=0.3)]
    assert class_growth(ratios, telling) == pytest.approx(2**0.5)
    assert class_growth({}) == 0
