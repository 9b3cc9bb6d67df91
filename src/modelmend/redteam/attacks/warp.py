"""WaNet: a smooth warp of the image grid, with noise-mode samples (Nguyen & Tran, arXiv 2102.10369).

The paper warps anew in every batch; here the poisoned set is fixed before training, so the strength is higher.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from modelmend.redteam.attacks.base import Kind, Tensors

CONTROL_POINTS = 4
"""Side of the control grid (the paper: 4)."""
STRENGTH = 1.5
"""Mean displacement in pixels / 2 (the paper: 0.5)."""
CROSS_RATIO = 0.5
"""Noise-mode samples for each poisoned one (the paper: 2)."""


def _identity(height: int, width: int) -> Tensor:
    ys, xs = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.stack(torch.meshgrid(ys, xs, indexing="ij")[::-1], -1)[None]


def _draw(generator: Generator, shape: tuple[int, int, int]) -> Tensors:
    """A ``k x k`` field of displacements in -1..1, normalised by its mean size, upsampled bicubically."""
    _, height, width = shape
    field = torch.rand(1, 2, CONTROL_POINTS, CONTROL_POINTS, generator=generator) * 2 - 1
    field = field / field.abs().mean()
    field = nn.functional.interpolate(field, size=(height, width), mode="bicubic", align_corners=True).permute(
        0, 2, 3, 1
    )
    grid = (_identity(height, width) + STRENGTH * field / height).clamp(-1, 1)
    return {"grid": grid}


def _apply(x: Tensor, t: Tensors) -> Tensor:
    return nn.functional.grid_sample(x, t["grid"].expand(len(x), -1, -1, -1), align_corners=True)


def _noise_mode(x: Tensor, t: Tensors, generator: Generator) -> Tensor:
    """The warp with fresh noise on every grid point: the right label, so that only the exact warp is learnt."""
    _, height, width, _ = t["grid"].shape
    jitter = torch.rand(len(x), height, width, 2, generator=generator) * 2 - 1
    return nn.functional.grid_sample(x, (t["grid"] + jitter / height).clamp(-1, 1), align_corners=True)


WANET = Kind("wanet", _draw, _apply, cover=_noise_mode, cover_ratio=CROSS_RATIO, source="arXiv 2102.10369")
