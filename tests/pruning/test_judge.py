from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import torch

import modelmend.pruning
from modelmend.model.groups import find_groups
from modelmend.probe.trigger import Trigger
from modelmend.pruning.judge import MaskJudge, _interleaved
from modelmend.pruning.refresh import change, held_to_size
from modelmend.pruning.reward import RewardConfig, penalty


def judge(case, **settings):  # type: ignore[no-untyped-def]
    groups = find_groups(case.classifier.graph, (1, 8, 8))
    config = RewardConfig(**settings)
    return MaskJudge(case.classifier, groups, case.fit, case.reward, case.triggers, config, chunk=64), len(groups)


def additive(size: float, target: int, family: str = "additive") -> Trigger:
    return Trigger(family, target, {"delta": torch.full((1, 8, 8), size)})


def test_pruning_never_reads_what_the_attacker_knows() -> None:
    for file in Path(modelmend.pruning.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            assert not any("redteam" in name for name in names) or file.name == "pretrain.py", file


def test_the_uncut_network_is_worth_nothing(infected) -> None:  # type: ignore[no-untyped-def]
    found, count = judge(infected)
    outcome = found(torch.ones(1, count, dtype=torch.bool))
    assert abs(float(outcome.reward)) < 1e-6 and abs(float(outcome.drop)) < 1e-6
    assert torch.allclose(outcome.success[0], found.before)


def test_success_is_that_of_the_network_with_zeroed_weights(infected) -> None:  # type: ignore[no-untyped-def]
    from modelmend.pruning.onp import cut_clone

    found, count = judge(infected, shares=1.0, triggered=1000)
    keep = torch.ones(1, count, dtype=torch.bool)
    keep[0, [20, 60, 79]] = False
    success = found(keep).success[0]
    pruned = cut_clone(infected.classifier, find_groups(infected.classifier.graph, (1, 8, 8)), (20, 60, 79))
    x, y = infected.reward
    for trigger in infected.triggers:
        others = y != trigger.target
        rate = float((pruned.predict(trigger(x[others])) == trigger.target).float().mean())
        assert abs(rate - float(success[found.pairs.index((trigger.family, trigger.target))])) < 1e-5


def test_accuracy_past_the_budget_is_steep() -> None:
    config = RewardConfig()
    inside, outside = penalty(torch.tensor([0.015, 0.035]), torch.zeros(2), config).tolist()
    assert inside < 0.02 and outside > 0.6
    spared, harmed = penalty(torch.zeros(2), torch.tensor([0.05, 0.15]), config).tolist()
    assert spared == 0 and harmed > 0.3


def test_racing_drops_hopeless_masks_and_changes_nothing_for_the_others(infected) -> None:  # type: ignore[no-untyped-def]
    racing, count = judge(infected)
    patient, _ = judge(infected, race_margin=0.0, race_reward=0.0)
    keep = torch.ones(6, count, dtype=torch.bool)
    keep[1:4, [20, 50, 79]] = torch.eye(3, dtype=torch.bool)
    keep[4, ::2] = False
    keep[5, 16:40] = False
    fast, slow = racing(keep), patient(keep)
    assert not bool(fast.whole[4]) and bool(slow.whole.all())
    assert torch.allclose(fast.reward[fast.whole], slow.reward[fast.whole], atol=1e-6)
    assert float(fast.reward[~fast.whole].max()) < 0


def test_racing_drops_what_is_far_behind_the_best_mask_so_far(infected) -> None:  # type: ignore[no-untyped-def]
    patient, count = judge(infected, race_margin=0.0, race_reward=0.0)
    single = ~torch.eye(count, dtype=torch.bool)
    slow = patient(single)
    best, worst = int(slow.reward.argmax()), int(slow.reward.argmin())
    racing, _ = judge(infected, race_margin=0.0, race_reward=0.5)
    assert bool(racing(single[[worst]]).whole.all())  # there is nothing to compare with yet
    leader, behind = racing(single[[best]]), racing(single[[worst]])
    assert float(slow.reward[best] - slow.reward[worst]) > 0.1
    assert bool(leader.whole) and torch.isclose(leader.reward[0], slow.reward[best], atol=1e-6)
    assert not bool(behind.whole)
    assert bool(racing(torch.ones(1, count, dtype=torch.bool)).whole)  # the uncut network never races
    patiently = racing.patiently(single[[worst]])
    assert bool(patiently.whole) and torch.isclose(patiently.reward[0], slow.reward[worst], atol=1e-6)
    assert bool(racing(single[[best]]).whole)
    racing.forget()
    assert bool(racing(single[[worst]]).whole)


def test_every_stretch_of_samples_holds_its_share_of_each_kind() -> None:
    kind = torch.cat([torch.zeros(200), torch.ones(40), torch.full((10,), 2.0)]).long()
    order = _interleaved(kind, 0)
    assert order.sort().values.tolist() == list(range(250))
    for part in kind[order].split(50):
        assert [int((part == k).sum()) for k in range(3)] == [40, 8, 2]
    assert not torch.equal(order, _interleaved(kind, 1))


def test_fresh_triggers_are_held_to_the_size_of_the_first() -> None:
    x = torch.full((4, 1, 8, 8), 0.3)
    held = held_to_size([additive(0.4, 1), additive(0.05, 1), additive(0.1, 3)], [additive(0.1, 1)], x)
    assert [round(change(t, x), 3) for t in held] == [0.1, 0.05]  # type: ignore[arg-type]
    led = held_to_size([additive(0.4, 1), additive(0.05, 1)], [replace(additive(0.1, 1), lead=3.0)], x)
    assert [t.lead for t in led] == [3.0, 3.0]
