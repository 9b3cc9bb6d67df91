"""What a search has found out so far about each group, as node attributes: the graph carries it to groups not tried yet.

Rewards of all masks judged so far are fitted by a linear function of the cuts (ridge regression, the best masks counting
most, so that it says what a group is worth beside the cuts that pay).
"""

from __future__ import annotations

import torch
from torch import Tensor

WORTH = -3
"""Column of the first of ``NAMES`` in the node attributes, which these end."""
NAMES = ("worth so far", "harm so far", "tried so far")
"""Columns of the attributes."""
RIDGE = 1.0
"""Masks that the assumption of no effect weighs as much as."""
NEAR = 0.15
"""A mask so much worse than the best one counts 1/e as much as it."""
SCALE = 10.0
"""A tenth of reward, or of accuracy, is 1."""


def attributes(cut: Tensor, reward: Tensor, drop: Tensor) -> Tensor:
    """Attributes ``(G, 3)`` from judged masks.

    Args:
        cut: Cut groups, bool ``(M, G)``.
        reward: ``(M,)``.
        drop: Fall in clean accuracy, ``(M,)``.
    """
    x = torch.cat([cut.double(), torch.ones(len(cut), 1, dtype=torch.double)], 1)
    weight = ((reward - reward.amax()) / NEAR).exp().double()
    penalty = torch.full((x.shape[1],), RIDGE, dtype=torch.double)
    penalty[-1] = 1e-6
    weighted = x * weight[:, None]
    y = torch.stack([reward, drop], 1).double()
    found = torch.linalg.solve(x.T @ weighted + penalty.diag(), weighted.T @ y)[:-1].float()
    tried = weighted[:, :-1].sum(0).float().log1p() / 2
    return torch.cat([(SCALE * found).clamp(-4, 4), tried[:, None].clamp(max=4)], 1)
