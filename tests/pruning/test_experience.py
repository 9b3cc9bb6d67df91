"""What a search knows of its groups: worth and harm from judged masks, forgotten where a search begins anew."""

import torch

from modelmend.pruning import experience
from modelmend.pruning.environment import Archive, CutEnvironment
from modelmend.pruning.policy import NeuronPolicy, PolicyConfig
from modelmend.pruning.ppo import PPOConfig, learn, search
from tests.pruning.toy import planted, planted_environment, planted_judge


def masks(count: int, groups: int = 10) -> torch.Tensor:
    return torch.rand(count, groups, generator=torch.Generator().manual_seed(0)) < 0.3


def test_worth_and_harm_of_additive_effects_are_found() -> None:
    cut = masks(200)
    worth, harm = torch.zeros(10), torch.zeros(10)
    worth[3], worth[5], harm[7] = 0.08, -0.05, 0.02
    found = experience.attributes(cut, cut.float() @ worth, cut.float() @ harm)
    assert found.shape == (10, len(experience.NAMES))
    assert torch.allclose(found[:, 0], 10 * worth, atol=0.05)
    assert torch.allclose(found[:, 1], 10 * harm, atol=0.05)


def test_what_was_never_cut_is_worth_nothing_and_untried() -> None:
    cut = masks(20)
    cut[:, 4] = False
    found = experience.attributes(cut, cut[:, 2].float() * 0.2, torch.zeros(20))
    assert found[4].abs().max() < 1e-5
    assert found[2, 0] > 1 and found[2, 2] > 0


def test_the_graph_is_told_before_every_iteration_unless_switched_off() -> None:
    for told in (True, False):
        env = planted_environment()
        torch.manual_seed(0)
        learn(env, NeuronPolicy(6, 3), PPOConfig(masks=1000, iterations=3, experience=told), seed=0)
        assert bool(env.graph.x[:, experience.WORTH :].any()) == told


def test_a_restart_forgets_what_was_found_and_keeps_what_was_given() -> None:
    graph, backdoor = planted()
    archive = Archive(planted_judge(graph, backdoor))
    given = torch.zeros(1, len(graph.prior), dtype=torch.bool)
    given[0, 0] = True
    archive.judge(given)
    env = CutEnvironment(graph, archive, limit=10)
    before, judged = archive.experience(env.groups), archive.judged
    search(env, NeuronPolicy(6, 3, PolicyConfig()), 8, torch.Generator().manual_seed(0), PPOConfig())
    assert archive.judged > judged and not torch.equal(archive.experience(env.groups), before)
    judged = archive.judged
    archive.meet()
    assert torch.equal(archive.experience(env.groups), before)
    archive.judge(given)
    assert archive.judged == judged


def test_experience_leads_the_untrained_agent_to_what_paid() -> None:
    """Without a gradient step, later searches do better than the first only where the agent is told."""
    rewards = {}
    for told in (True, False):
        env = planted_environment()
        torch.manual_seed(0)
        rows = learn(
            env,
            NeuronPolicy(6, 3),
            PPOConfig(masks=400, iterations=15, learn=False, returns=0, experience=told),
            seed=0,
        )
        means = [row["mean_reward"] for row in rows if row["event"] == "iteration"]
        rewards[told] = sum(means[-3:]) / 3 - means[0]
    assert rewards[True] > rewards[False] + 0.05


def test_fewer_masks_than_groups_give_the_same_as_the_full_equations() -> None:
    cut = masks(12, groups=10)
    reward = torch.rand(12, generator=torch.Generator().manual_seed(1))
    padded = torch.cat([cut, torch.zeros(12, 5, dtype=torch.bool)], 1)
    assert torch.allclose(
        experience.attributes(padded, reward, reward)[:10], experience.attributes(cut, reward, reward), atol=1e-5
    )


def test_an_empty_archive_knows_nothing() -> None:
    env = planted_environment()
    env.archive.forget()
    env.recall()
    assert not env.graph.x[:, experience.WORTH :].any()
