"""LF: a smooth trigger that lives in the lowest frequencies only (Zeng et al., arXiv 2104.03413).

The paper searches the smooth trigger by gradients; here it is drawn at random from the same band (our choice).
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from modelmend.redteam.attacks.base import Kind, Tensors

AMPLITUDE = 0.16
"""Largest change of a pixel, of 1."""
BAND = 4
"""Cosine terms with ``0 < u + v <= BAND``."""


def _draw(generator: Generator, shape: tuple[int, int, int]) -> Tensors:
    """A random combination of two-dimensional cosines (DCT-II basis), scaled to ``AMPLITUDE``."""
    channels, height, width = shape
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    pattern = torch.zeros(shape)
    for u in range(BAND + 1):
        for v in range(BAND + 1 - u):
            if u + v == 0:
                continue
            wave = torch.cos(math.pi * u * rows / height)[:, None] * torch.cos(math.pi * v * columns / width)[None, :]
            pattern += torch.randn(channels, 1, 1, generator=generator) * wave
    return {"pattern": AMPLITUDE * pattern / pattern.abs().max()}


def _apply(x: Tensor, t: Tensors) -> Tensor:
    return x + t["pattern"]


LF = Kind("lf", _draw, _apply, source="arXiv 2104.03413")
