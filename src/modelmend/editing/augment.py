"""Small random changes of training samples that keep their class: they lower what a repair memorises."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def augment(x: Tensor, generator: torch.Generator, *, shift: float, noise: float, image: bool) -> Tensor:
    """Shift each image by a few pixels (edge values repeat) and add Gaussian noise; raw samples only get noise.

    No flips and no rotations: for signs and digits they change the class.

    Args:
        x: Samples ``(N, ...)``; images ``(N, C, H, W)`` in 0..1.
        generator: CPU generator.
        shift: Largest shift as a share of the image's side (8 x 8 at 0.06 -> none, 32 x 32 -> 2 pixels).
        noise: Standard deviation of the noise: in image units, or as a share of each feature's deviation when raw.
        image: Whether samples are images.

    Returns:
        Changed copies.
    """
    if not x.is_floating_point():
        return x
    draw = torch.randn(x.shape, generator=generator).to(x.device, x.dtype)
    if not image or x.dim() != 4:
        return x + noise * x.std(0, keepdim=True, unbiased=False) * draw
    pixels = int(shift * min(x.shape[-2:]) + 0.5)
    if pixels:
        x = _shifted(x, pixels, generator)
    return (x + noise * draw).clamp(0, 1)


def _shifted(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    n, _, height, width = x.shape
    padded = functional.pad(x, (pixels,) * 4, mode="replicate")
    top, left = (torch.randint(0, 2 * pixels + 1, (n,), generator=generator).to(x.device) for _ in range(2))
    rows = (top[:, None] + torch.arange(height, device=x.device))[:, None, :, None]
    columns = (left[:, None] + torch.arange(width, device=x.device))[:, None, None, :]
    batch = torch.arange(n, device=x.device)[:, None, None, None]
    channel = torch.arange(x.shape[1], device=x.device)[None, :, None, None]
    return padded[batch, channel, rows, columns]
