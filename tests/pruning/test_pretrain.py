from __future__ import annotations

import json

import pytest
import torch

from modelmend.errors import InputError
from modelmend.pruning import PruningConfig, prune
from modelmend.pruning.graph import EDGE_FEATURES, NODE_ATTRIBUTES
from modelmend.pruning.onp import new_policy
from modelmend.pruning.policy import NeuronPolicy, PolicyConfig
from modelmend.pruning.ppo import PPOConfig, learn
from modelmend.pruning.pretrain import LEARNER, SHIPPED, load_policy, pretrain, read_about, rehearse, save_policy
from tests.pruning.toy import planted_environment


def test_a_policy_that_learned_on_two_networks_searches_a_third_better() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    policy = NeuronPolicy(6, 3)
    before = rehearse(planted_environment(2), policy, LEARNER, seed=0)
    rows = pretrain([planted_environment(0), planted_environment(1)], policy, LEARNER, rounds=12, seed=0)
    assert [len(row["mean"]) for row in rows] == [2] * 12
    assert rehearse(planted_environment(2), policy, LEARNER, seed=0) > before + 0.1


def test_rehearsing_changes_nothing_and_repeats() -> None:
    policy = NeuronPolicy(6, 3)
    weights = {name: value.clone() for name, value in policy.state_dict().items()}
    first, again = (rehearse(planted_environment(), policy, LEARNER, searches=4, seed=1) for _ in range(2))
    assert first == again
    assert all(torch.equal(weights[name], value) for name, value in policy.state_dict().items())


def test_a_saved_policy_comes_back_with_its_recipe(tmp_path) -> None:  # type: ignore[no-untyped-def]
    policy = new_policy(PolicyConfig(hidden=16), 5)
    save_policy(tmp_path, policy, {"models": []})
    back = load_policy(tmp_path)
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in policy.state_dict().items())
    assert json.loads((tmp_path / "policy.json").read_text())["recipe"] == {"models": []}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["policy.json", "policy.safetensors"]


def broken(folder, kind: str) -> None:  # type: ignore[no-untyped-def]
    policy = new_policy(PolicyConfig(), 0)
    if kind == "not finite":
        with torch.no_grad():
            policy.prior_weight.fill_(float("nan"))
    save_policy(folder, policy, {})
    about = json.loads((folder / "policy.json").read_text())
    if kind == "other form":
        about["config"]["hidden"] = 16
    elif kind == "other attributes":
        about["attributes"] = about["attributes"][1:]
    elif kind == "no record":
        about = []
    (folder / "policy.json").write_text(json.dumps(about))
    if kind == "cut short":
        (folder / "policy.safetensors").write_bytes((folder / "policy.safetensors").read_bytes()[:100])


@pytest.mark.parametrize("kind", ["not finite", "other form", "other attributes", "no record", "cut short"])
def test_an_unusable_policy_says_where_and_what_to_do(kind: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    broken(tmp_path, kind)
    with pytest.raises(InputError) as error:
        load_policy(tmp_path)
    assert str(tmp_path) in str(error.value.where) and error.value.field and "policy train" in str(error.value.fix)


def test_pruning_starts_from_the_policy_of_a_folder(infected, tmp_path) -> None:  # type: ignore[no-untyped-def]
    policy = new_policy(PolicyConfig(), 0)
    with torch.no_grad():
        policy.prior_weight.fill_(2.75)
    save_policy(tmp_path, policy, {})
    ppo = PPOConfig(iterations=1, searches=2, learn=False)
    config = PruningConfig(ppo=ppo, refreshes=0, explain=False, policy_dir=tmp_path)
    case = infected
    log = prune(case.classifier, case.fit, case.reward, case.select, case.triggers, config=config, seed=0).log
    assert [row["prior_weight"] for row in log if row["event"] == "iteration"] == [2.75]


def test_the_shipped_policy_reads_this_versions_graphs() -> None:
    policy = new_policy(PolicyConfig(), 0, pretrained=True)
    edges = torch.randint(10, (2, 30), generator=torch.Generator().manual_seed(0))
    odds = policy.candidate(
        torch.randn(10, len(NODE_ATTRIBUTES)), edges, torch.rand(30, EDGE_FEATURES), -torch.arange(1.0, 11.0).log()
    )
    assert odds.shape == (10,) and bool(odds.isfinite().all())
    assert {m["attack"] for m in read_about(SHIPPED)["recipe"]["models"]}.isdisjoint({"wanet", None})  # type: ignore[arg-type]


def test_rehearsing_leaves_what_a_search_has_found_out() -> None:
    env = planted_environment()
    torch.manual_seed(0)
    learn(env, NeuronPolicy(6, 3), PPOConfig(masks=200, iterations=3, experience=True), seed=0)
    told, known = env.graph.x.clone(), env.archive.experience(env.groups)
    rehearse(env, NeuronPolicy(6, 3), LEARNER, searches=4, seed=1)
    assert torch.equal(env.graph.x, told) and torch.equal(env.archive.experience(env.groups), known)
