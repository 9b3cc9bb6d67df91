"""Adaptive-blend: cover samples and partial triggers keep poisoned and clean features together (Qi et al., ICLR 2023).

Training shows random pieces of the pattern, half of them under the right label; the test shows all pieces, so the
trigger is strong although latent separability, which many defences look for, stays small.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from modelmend.redteam.attacks.base import Kind, Tensors
from modelmend.redteam.attacks.blended import draw_pattern

TRAIN_ALPHA, TEST_ALPHA = 0.15, 0.2
PIECES, SHOWN = 16, 8
"""The image is cut in 4x4 pieces, of which training shows half."""
COVER_RATIO = 1.0


def _draw(generator: Generator, shape: tuple[int, int, int]) -> Tensors:
    return {"pattern": draw_pattern(generator, shape)}


def _apply(x: Tensor, t: Tensors) -> Tensor:
    return (1 - TEST_ALPHA) * x + TEST_ALPHA * t["pattern"]


def _some_pieces(x: Tensor, t: Tensors, generator: Generator) -> Tensor:
    n, _, height, width = x.shape
    shown = torch.rand(n, PIECES, generator=generator).argsort(1) < SHOWN
    rows, columns = torch.arange(height) * 4 // height, torch.arange(width) * 4 // width
    piece = rows[:, None] * 4 + columns[None, :]
    alpha = TRAIN_ALPHA * shown[:, piece].float()[:, None]
    return (1 - alpha) * x + alpha * t["pattern"]


ADAPTIVE_BLEND = Kind(
    "adaptive_blend",
    _draw,
    _apply,
    apply_in_training=_some_pieces,
    cover=_some_pieces,
    cover_ratio=COVER_RATIO,
    source="Qi et al., Revisiting the Assumption of Latent Separability, ICLR 2023",
)
