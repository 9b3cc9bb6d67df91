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
    """Attributes ``(G, 3)`` from at least one judged mask.

    Args:
        cut: Cut groups, bool ``(M, G)``.
        reward: ``(M,)``.
        drop: Fall in clean accuracy, ``(M,)``.
    """
    weight = ((reward - reward.amax()) / NEAR).exp().double()[:, None]
    x, y = cut.double(), torch.stack([reward, drop], 1).double()
    x, y = (v - (weight * v).sum(0) / weight.sum() for v in (x, y))  # the intercept is free
    x, y = weight.sqrt() * x, weight.sqrt() * y
    masks, groups = x.shape
    if masks < groups:
        found = x.T @ torch.linalg.solve(x @ x.T + RIDGE * torch.eye(masks).double(), y)
    else:
        found = torch.linalg.solve(x.T @ x + RIDGE * torch.eye(groups).double(), x.T @ y)
    tried = (weight * cut).sum(0).float().log1p() / 2
    return torch.cat([(SCALE * found.float()).clamp(-4, 4), tried[:, None].clamp(max=4)], 1)
