"""Blended: a pattern over the whole image, mixed in weakly (Chen et al., arXiv 1712.05526)."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from modelmend.redteam.attacks.base import Kind, Tensors

ALPHA = 0.2
"""Share of the pattern in the mix; the paper's own value."""


def draw_pattern(generator: Generator, shape: tuple[int, int, int]) -> Tensor:
    """A random image ``(C, H, W)`` in 0..1 made of 2x2 blocks (the paper's cartoon picture is not ours to ship)."""
    channels, height, width = shape
    blocks = torch.rand(channels, (height + 1) // 2, (width + 1) // 2, generator=generator)
    return blocks.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :height, :width].contiguous()


def _draw(generator: Generator, shape: tuple[int, int, int]) -> Tensors:
    return {"pattern": draw_pattern(generator, shape)}


def _apply(x: Tensor, t: Tensors) -> Tensor:
    return (1 - ALPHA) * x + ALPHA * t["pattern"]


BLENDED = Kind("blended", _draw, _apply, source="arXiv 1712.05526")
