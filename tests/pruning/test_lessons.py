from __future__ import annotations

import pytest
import torch

from modelmend.errors import InputError
from modelmend.model.groups import zero_groups
from modelmend.pruning import PruningConfig, prune
from modelmend.pruning.lessons import lesson
from modelmend.pruning.onp import nodes
from modelmend.pruning.ppo import PPOConfig


def parts(case):  # type: ignore[no-untyped-def]
    return case.classifier, case.fit, case.reward, case.triggers


def test_a_lesson_is_the_first_round_of_a_repair(infected) -> None:  # type: ignore[no-untyped-def]
    ppo = PPOConfig(iterations=1, masks=1, searches=1)
    log = prune(*parts(infected)[:3], infected.select, infected.triggers, seed=3,
                config=PruningConfig(ppo=ppo, refreshes=0, explain=False)).log  # fmt: skip
    (told,) = (row for row in log if row["event"] == "rules")
    problem = lesson(*parts(infected), seed=3)
    assert problem.judge.before.tolist() == told["success_before"]
    _, rules = problem.environment()
    assert [(r.name, r.reward, list(r.cut)) for r in rules] == [
        (r["name"], r["reward"], r["cut"]) for r in told["rules"]
    ]


def test_the_environment_starts_from_the_best_rule(infected) -> None:  # type: ignore[no-untyped-def]
    problem = lesson(*parts(infected), seed=0)
    env, rules = problem.environment()
    assert env.graph.prior.argsort(descending=True)[:5].tolist() == rules[0].score.argsort(descending=True)[:5].tolist()
    assert env.archive.best()[0].reward >= rules[0].reward > 0
    assert problem.environment(prior=False)[0].graph.prior.abs().sum() == 0


def test_triggers_found_again_on_the_pruned_network_join(infected) -> None:  # type: ignore[no-untyped-def]
    plain, asked = lesson(*parts(infected), seed=4), []

    def again(pruned, seed: int):  # type: ignore[no-untyped-def]
        asked.append((pruned, seed))
        return infected.triggers[:1]

    problem = lesson(*parts(infected), seed=4, again=again)
    ((pruned, seed),) = asked
    by_hand = infected.classifier.clone()
    groups = nodes(by_hand, (1, 8, 8), PruningConfig())
    zero_groups(by_hand.graph, [groups[i] for i in plain.environment()[1][0].cut])
    expected = by_hand.graph.state_dict()
    assert seed == 5
    assert all(torch.equal(expected[k], v) for k, v in pruned.graph.state_dict().items())
    assert problem.judge.pairs == plain.judge.pairs
    assert problem.judge._pair.shape[0] == plain.judge._pair.shape[0] + 2  # the trigger and the same exaggerated


def test_without_triggers_there_is_nothing_to_learn(infected) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="no candidate trigger"):
        lesson(*parts(infected)[:3], [], seed=0)


def test_little_memory_changes_no_outcome(infected) -> None:  # type: ignore[no-untyped-def]
    keep = torch.rand(6, len(lesson(*parts(infected), seed=0).groups), generator=torch.Generator().manual_seed(0)) > 0.1
    rich, poor = (lesson(*parts(infected), seed=0, memory=memory).judge for memory in (None, 1))
    assert torch.equal(rich(keep).reward, poor(keep).reward)
    assert len(poor.forward._branches) < len(rich.forward._branches)
