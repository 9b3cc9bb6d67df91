from __future__ import annotations

import torch

from modelmend.pruning.policy import NeuronPolicy, PolicyConfig
from tests.pruning.toy import planted_environment


def logits(config: PolicyConfig, *, rewired: bool) -> torch.Tensor:
    env = planted_environment()
    torch.manual_seed(0)
    policy = NeuronPolicy(6, 3, config)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    if rewired:
        env.graph.edge_index = env.graph.edge_index.flip(1).roll(7, 1)
        env.graph.edge_index[1] = env.graph.edge_index[1].roll(3)
    env.reset(1)
    env.step(torch.tensor([4]))
    with torch.no_grad():
        found, _ = policy(env.graph, env.state())
    return found


def test_the_policy_reads_the_wiring() -> None:
    assert not torch.allclose(logits(PolicyConfig(), rewired=False), logits(PolicyConfig(), rewired=True))
    some = PolicyConfig(encoder="mlp")
    assert not torch.allclose(logits(some, rewired=False), logits(some, rewired=True))


def test_messages_of_experience_alone_read_the_wiring_and_nothing_measured() -> None:
    torch.manual_seed(0)
    policy = NeuronPolicy(8, 3, PolicyConfig(messages="experience"))
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    edges = torch.tensor([[0, 1], [1, 2]])
    strength = torch.tensor([[1.0, 0.0, 1.0]] * 2)
    with torch.no_grad():
        x = torch.rand(3, 8)
        before = policy.encode(x, edges, strength)
        measured, found = x.clone(), x.clone()
        measured[0, 0] += 1
        found[0, -1] += 1
        other, told = policy.encode(measured, edges, strength), policy.encode(found, edges, strength)
    assert torch.allclose(other[1:], before[1:]) and not torch.allclose(other[0], before[0])
    assert not torch.allclose(told[1], before[1])


def test_the_ablation_without_a_graph_reads_no_wiring() -> None:
    none = PolicyConfig(encoder="mlp", neighbours=False)
    assert torch.allclose(logits(none, rewired=False), logits(none, rewired=True))
