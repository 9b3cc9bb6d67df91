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


def test_the_ablation_without_a_graph_reads_no_wiring() -> None:
    none = PolicyConfig(encoder="mlp", neighbours=False)
    assert torch.allclose(logits(none, rewired=False), logits(none, rewired=True))
