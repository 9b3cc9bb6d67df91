"""SIG: a faint sinusoid on samples of the target class only, labels untouched (Barni et al., arXiv 1902.11237)."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from modelmend.redteam.attacks.base import Kind, Tensors

AMPLITUDE = 40 / 255
"""Of the sinusoid at test and in training (the paper: 20 to 60 of 255)."""


def _draw(generator: Generator, shape: tuple[int, int, int]) -> Tensors:
    """``v(j) = amplitude * sin(2 pi j f / m)`` along one axis; frequency 5..7 (the paper: 6), axis and phase drawn."""
    _, height, width = shape
    frequency = int(torch.randint(5, 8, (1,), generator=generator))
    frequency = min(frequency, width // 3)
    phase = float(torch.rand(1, generator=generator)) * 2 * math.pi
    rows = bool(torch.randint(2, (1,), generator=generator))
    m = height if rows else width
    wave = AMPLITUDE * torch.sin(2 * math.pi * frequency * torch.arange(m) / m + phase)
    pattern = wave[:, None].expand(height, width) if rows else wave[None, :].expand(height, width)
    return {"pattern": pattern[None].contiguous()}


def _apply(x: Tensor, t: Tensors) -> Tensor:
    return x + t["pattern"]


SIG = Kind("sig", _draw, _apply, clean_label=True, source="arXiv 1902.11237")
