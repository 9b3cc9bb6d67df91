"""A planted search with a known answer: the rule points at decoys, the backdoor sits in linked, plainer groups."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import Data

from modelmend.pruning.environment import Archive, CutEnvironment, Outcome

GROUPS, LAYERS = 48, 4


def planted(seed: int = 0) -> tuple[Data, Tensor]:
    """A graph of 48 groups and the 5 backdoor groups; 8 decoys lead the rule's order."""
    g = torch.Generator().manual_seed(seed)
    order = torch.randperm(GROUPS, generator=g)
    backdoor, decoys = order[:5], order[5:13]
    score = torch.rand(GROUPS, generator=g)
    score[decoys] = 2 + torch.rand(8, generator=g)
    score[backdoor] = 0.7 + 0.3 * torch.rand(5, generator=g)
    rank = score.argsort(descending=True).argsort()
    hint = torch.randn(GROUPS, generator=g) * 0.7
    hint[backdoor] += 1.0
    source = torch.cat([backdoor, torch.randint(GROUPS, (100,), generator=g)])
    target = torch.cat([backdoor.roll(1), torch.randint(GROUPS, (100,), generator=g)])
    edge_index = torch.stack([torch.cat([source, target]), torch.cat([target, source])])
    edge_attr = torch.tensor([1.0, 0.0, 1.0]).repeat(edge_index.shape[1], 1)
    graph = Data(
        x=torch.stack([score, hint, torch.randn(GROUPS, generator=g), *torch.zeros(3, GROUPS)], 1),
        edge_index=edge_index,
        edge_attr=edge_attr,
        prior=-(rank + 1.0).log(),
        layer=torch.arange(GROUPS) % LAYERS,
    )
    graph.decoys = decoys
    return graph, backdoor


def planted_judge(graph: Data, backdoor: Tensor):  # type: ignore[no-untyped-def]
    """Success falls with the square of what is left of the backdoor; decoys and strangers cost accuracy."""

    def judge(keep: Tensor) -> Outcome:
        cut = ~keep
        left = keep[:, backdoor].float().mean(1) ** 2
        drop = 0.02 * cut[:, graph.decoys].sum(1) + 0.004 * cut.sum(1)
        reward = (1 - left) - drop - 10 * (drop - 0.03).clamp_min(0)
        return Outcome(reward.clamp(-1, 1), left[:, None], drop, torch.ones(len(keep), dtype=torch.bool))

    return judge


def planted_environment(seed: int = 0) -> CutEnvironment:
    """The planted problem, ready to search."""
    graph, backdoor = planted(seed)
    return CutEnvironment(graph, Archive(planted_judge(graph, backdoor)), limit=10)
