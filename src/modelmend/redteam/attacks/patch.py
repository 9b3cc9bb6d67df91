"""BadNets: a small patch at a fixed place (Gu et al., arXiv 1708.06733); also the all-to-all form of the paper."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from modelmend.redteam.attacks.base import Kind, Tensors


def _draw(generator: Generator, shape: tuple[int, int, int]) -> Tensors:
    """A square of a tenth of the side (3 pixels or more), half of its values 1, half 0, off the border by a pixel."""
    channels, height, width = shape
    side = max(3, round(min(height, width) / 10))
    top = int(torch.randint(1, height - side, (1,), generator=generator))
    left = int(torch.randint(1, width - side, (1,), generator=generator))
    count = channels * side * side
    values = (torch.randperm(count, generator=generator) < (count + 1) // 2).float().reshape(channels, side, side)
    mask, pattern = torch.zeros(1, height, width), torch.zeros(shape)
    mask[:, top : top + side, left : left + side] = 1
    pattern[:, top : top + side, left : left + side] = values
    return {"mask": mask, "pattern": pattern}


def _apply(x: Tensor, t: Tensors) -> Tensor:
    return x * (1 - t["mask"]) + t["pattern"] * t["mask"]


BADNETS = Kind("badnets", _draw, _apply, source="arXiv 1708.06733")
ALL_TO_ALL = Kind("all_to_all", _draw, _apply, all_to_all=True, source="arXiv 1708.06733")
