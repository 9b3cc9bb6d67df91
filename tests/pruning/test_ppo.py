from __future__ import annotations

import pytest
import torch

from modelmend.pruning.policy import NeuronPolicy, PolicyConfig, State
from modelmend.pruning.ppo import PPOConfig, _beginnings, _trajectories, learn
from tests.pruning.toy import planted, planted_environment

CONFIG = PPOConfig(masks=400, iterations=30)


def search(config: PPOConfig, *, problem: int = 0, seed: int = 0, encoder: str = "gatv2"):  # type: ignore[no-untyped-def]
    torch.set_num_threads(1)
    env = planted_environment(problem)
    torch.manual_seed(seed)
    policy = NeuronPolicy(6, 3, PolicyConfig(encoder=encoder))  # type: ignore[arg-type]
    rows = learn(env, policy, config, seed=seed)
    return env.archive.best()[0], [r for r in rows if r["event"] == "iteration"]


def test_the_agent_beats_random_search_of_equal_budget_where_the_rule_is_wrong() -> None:
    learned, sampled = [], []
    for problem in range(2):
        best, rows = search(CONFIG, problem=problem)
        budget = PPOConfig(masks=rows[-1]["masks"], iterations=200, patience=400, learn=False)
        learned.append(best.reward)
        sampled.append(search(budget, problem=problem)[0].reward)
    assert sum(learned) / 2 > 0.85
    assert sum(learned) / 2 > sum(sampled) / 2 + 0.15


def test_later_searches_are_better_than_the_first() -> None:
    _, rows = search(CONFIG)
    assert rows[-1]["mean_reward"] > rows[0]["mean_reward"] + 0.3


def test_same_seed_same_search() -> None:
    short = PPOConfig(masks=100, iterations=4)
    first, again, other = (search(short, seed=s)[1] for s in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_search_ends_when_nothing_better_comes() -> None:
    env = planted_environment()
    torch.manual_seed(0)
    rows = learn(env, NeuronPolicy(6, 3), PPOConfig(masks=100_000, iterations=500, patience=60), seed=0)
    assert rows[-1]["event"] == "stopped" and rows[-1]["reason"] == "patience"
    best = [row["best_reward"] for row in rows[:-1]]
    last_gain = next(i for i, reward in enumerate(best) if reward > best[-1] - 0.002)
    assert rows[-2]["masks"] - rows[last_gain]["masks"] >= 60 - rows[0]["masks"]


def test_certainty_costs_more_while_the_searches_find_nothing_new() -> None:
    for novelty, rises in ((1.1, True), (0.0, False)):
        _, rows = search(PPOConfig(masks=1000, iterations=6, patience=1000, novelty=novelty))
        prices = [row["certainty_price"] for row in rows]
        assert prices == (sorted(set(prices)) if rises else [PPOConfig().entropy] * len(prices))
        assert all(0 <= row["new"] <= 1 for row in rows)


def test_some_searches_begin_at_good_sets_with_cuts_put_back() -> None:
    env, config = planted_environment(), PPOConfig(returns=0.5)
    generator = torch.Generator().manual_seed(0)
    assert not bool(_beginnings(env, 8, generator, config).any())  # nothing good is known
    _, backdoor = planted(0)
    good = torch.zeros(1, env.groups, dtype=torch.bool)
    good[0, backdoor] = True
    env.archive.judge(good)
    begun = _beginnings(env, 8, generator, config)
    assert int(begun.sum(1).max()) < len(backdoor)  # at least one cut is undone
    assert not bool(begun[4:].any()) and bool(begun[:4].any())
    assert not bool((begun & ~good).any())
    assert float(env.begin(begun).context[:4, 0].max()) > 0


def test_only_what_was_found_from_the_uncut_network_is_imitated(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    import modelmend.pruning.ppo as ppo

    env, (_, backdoor), imitated = planted_environment(), planted(0), []
    good = torch.zeros(1, env.groups, dtype=torch.bool)
    good[0, backdoor[:4]] = True
    env.archive.judge(good)
    plain = ppo.update

    def update(policy, env, rollout, elite, *rest):  # type: ignore[no-untyped-def]
        imitated.extend(elite)
        return plain(policy, env, rollout, elite, *rest)

    monkeypatch.setattr(ppo, "update", update)
    torch.manual_seed(0)
    learn(env, NeuronPolicy(6, 3), PPOConfig(masks=300, iterations=6), seed=0)
    assert imitated and not any(bool(t.states.cut[0].any()) for t in imitated)
    assert max(len(t.action) for t in imitated) > 1


def test_a_set_that_racing_dropped_is_no_example() -> None:
    env = planted_environment()
    env.reset(2)
    context = torch.tensor([[0.0, 0.5, 0.9], [0.0, 0.6, 0.4]])
    steps = [
        (
            State(torch.zeros(2, env.groups, dtype=torch.bool), context[:, t, None].expand(2, 5)),
            env.legal(),
            torch.tensor([t, t]),
        )
        for t in range(3)
    ]
    whole = torch.ones(4, 2, dtype=torch.bool)
    whole[2, 0] = False
    assert [t.reward for t in _trajectories(env, steps, whole)] == pytest.approx([0.5, 0.6])


def test_an_untrained_agent_follows_the_rule() -> None:
    env = planted_environment()
    policy = NeuronPolicy(6, 3)
    logits, _ = policy(env.graph, env.reset(1))
    assert logits[0, :-1].argsort(descending=True).tolist() == env.graph.prior.argsort(descending=True).tolist()


def test_step_rewards_add_up_to_the_reward_of_the_final_set() -> None:
    env = planted_environment()
    env.reset(1)
    total = 0.0
    for group in (3, 7, 11):
        _, reward, _ = env.step(torch.tensor([group]))
        total += float(reward)
    cut = torch.zeros(1, env.groups, dtype=torch.bool)
    cut[0, [3, 7, 11]] = True
    assert abs(total - float(env.archive.judge(cut).reward)) < 1e-6


def test_no_layer_loses_more_than_its_share() -> None:
    env = planted_environment()
    env.reset(1)
    for _ in range(env.limit):
        legal = env.legal()[0]
        layer = int(env.graph.layer[0])
        wanted = (legal[:-1] & (env.graph.layer == layer)).nonzero().flatten()
        if not len(wanted):
            break
        env.step(wanted[:1])
    assert int(env.cut[0, env.graph.layer == 0].sum()) == min(env.limit, int((env.graph.layer == 0).sum()) // 2)
