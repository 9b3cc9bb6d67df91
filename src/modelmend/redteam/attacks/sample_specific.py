"""Sample-specific: a small convolutional encoder writes another faint pattern into every image.

After SSBA (Li et al., arXiv 2012.03816) and Input-aware (Nguyen & Tran, arXiv 2010.08138). Both train their encoder;
here its weights are drawn from the seed (our choice: no training, and the pattern still depends on the image).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from modelmend.redteam.attacks.base import Kind, Tensors

AMPLITUDE = 0.1
"""Largest change of a pixel, of 1."""
HIDDEN = 16


def _draw(generator: Generator, shape: tuple[int, int, int]) -> Tensors:
    channels = shape[0]
    first = torch.randn(HIDDEN, channels, 3, 3, generator=generator)
    second = torch.randn(channels, HIDDEN, 3, 3, generator=generator)
    carrier = torch.randint(0, 2, shape, generator=generator).float() * 2 - 1
    return {"first": first - first.mean((2, 3), keepdim=True), "second": second, "carrier": carrier}


def _apply(x: Tensor, t: Tensors) -> Tensor:
    """``x + amplitude * carrier * (1 + tanh(g(x))) / 2``: the encoder decides where the carrier's signs are written."""
    hidden = torch.relu(nn.functional.conv2d(x, t["first"], padding=1))
    code = nn.functional.conv2d(hidden, t["second"], padding=1)
    code = torch.tanh(code / code.flatten(1).std(1).clamp_min(1e-6)[:, None, None, None])
    return x + AMPLITUDE * t["carrier"] * (1 + code) / 2


SAMPLE_SPECIFIC = Kind("sample_specific", _draw, _apply, source="arXiv 2012.03816, arXiv 2010.08138")
