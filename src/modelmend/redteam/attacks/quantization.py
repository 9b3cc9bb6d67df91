"""BppAttack-like: fewer grey levels with Floyd-Steinberg dithering (Wang et al., arXiv 2205.13383).

The paper's contrastive adversarial training is left out; its negative samples (another image's dithering noise under
the right label) are kept as cover samples.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from modelmend.redteam.attacks.base import Kind, Tensors

NEGATIVE_RATIO = 0.5
"""Negative samples for each poisoned one."""


def _draw(generator: Generator, shape: tuple[int, int, int]) -> Tensors:
    """Number of levels a channel: 4..6 (the paper: 8 of 256 by bits; small nets need a coarser step)."""
    return {"levels": torch.randint(4, 7, (1,), generator=generator).float()}


def dither(x: Tensor, levels: float) -> Tensor:
    """Quantise to ``levels`` values, passing each pixel's error on to its right and lower neighbours (7, 3, 5, 1)/16.

    Args:
        x: ``(N, C, H, W)`` in 0..1; pixels go in raster order, all images at once.
        levels: At least 2.
    """
    _, _, height, width = x.shape
    work = torch.nn.functional.pad(x, (1, 1, 0, 1)).permute(2, 3, 0, 1).contiguous()
    for i in range(height):
        for j in range(1, width + 1):
            old = work[i, j]
            new = (old * (levels - 1)).round() / (levels - 1)
            error = old - new
            work[i, j] = new
            work[i, j + 1] += error * (7 / 16)
            work[i + 1, j - 1] += error * (3 / 16)
            work[i + 1, j] += error * (5 / 16)
            work[i + 1, j + 1] += error * (1 / 16)
    return work[:height, 1 : width + 1].permute(2, 3, 0, 1).contiguous().clamp(0, 1)


def _apply(x: Tensor, t: Tensors) -> Tensor:
    levels = float(t["levels"])
    return torch.cat([dither(part, levels) for part in torch.split(x, 512)]) if len(x) else x


def _negative(x: Tensor, t: Tensors, generator: Generator) -> Tensor:
    """Add the dithering residual of another image."""
    residual = _apply(x, t) - x
    return x + residual[torch.randperm(len(x), generator=generator)]


BPP = Kind("bpp", _draw, _apply, cover=_negative, cover_ratio=NEGATIVE_RATIO, source="arXiv 2205.13383")
