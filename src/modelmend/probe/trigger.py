"""A candidate trigger: a change of the input, universal over samples, that can be stored as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from modelmend.errors import ArtifactError

PARTS = ("flow", "kernel", "mask", "pattern", "delta", "low", "high")


@dataclass(frozen=True)
class Trigger:
    """A trigger made of up to four parts, applied in this order: warp, filter, patch, addition; then clamped.

    Attributes:
        family: Name of the family that found it.
        target: Class that it leads to, if it has one.
        parts: ``flow`` (2, H, W) displacement in pixels (x, y); ``kernel`` (C, C, k, k) residual filter;
            ``mask`` (1 or C, H, W) in 0..1 with ``pattern`` (C, H, W); ``delta`` (C, H, W); ``low`` and ``high``,
            the range of samples when it is not 0..1. Samples need not be images for mask, pattern and delta.
    """

    family: str
    target: int | None
    parts: Mapping[str, Tensor] = field(repr=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Triggered samples, of the shape and on the device of ``x`` ``(N, ...)``; gradients flow to ``x``."""
        return apply_parts({name: part.to(x.device) for name, part in self.parts.items()}, x)

    def state(self) -> dict[str, Tensor]:
        """The parts as contiguous float32 CPU tensors, for safetensors."""
        return {name: part.detach().float().cpu().contiguous() for name, part in self.parts.items()}

    @classmethod
    def from_state(cls, family: str, target: int | None, state: Mapping[str, Tensor]) -> Trigger:
        """Rebuild from ``state()``; raises ``ArtifactError`` on unknown or missing parts."""
        unknown = sorted(set(state) - set(PARTS))
        if unknown or not set(state) & {"flow", "kernel", "mask", "delta"} or ("mask" in state) != ("pattern" in state):
            raise ArtifactError("these tensors are no trigger", field=", ".join(unknown or sorted(state)))
        return cls(family, target, dict(state))


def apply_parts(parts: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Apply the parts to ``x``; parts may carry leading axes that broadcast against those of ``x``.

    Args:
        parts: As in ``Trigger``; with a leading class axis ``(K, 1, ...)`` when ``x`` is ``(K, b, ...)``.
        x: Samples ``(N, ...)`` or ``(K, b, ...)``; flow and kernel need images.
    """
    if "flow" in parts:
        x = warp(x, parts["flow"])
    if "kernel" in parts:
        x = x + convolve(x, parts["kernel"])
    if "mask" in parts:
        x = x + parts["mask"] * (parts["pattern"] - x)
    if "delta" in parts:
        x = x + parts["delta"]
    low, high = parts.get("low"), parts.get("high")
    return x.clamp(0, 1) if low is None or high is None else torch.minimum(torch.maximum(x, low), high)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Resample ``x`` ``(..., C, H, W)`` at positions moved by ``flow`` ``(..., 2, H, W)`` pixels, borders repeated."""
    height, width = x.shape[-2:]
    rows = torch.linspace(-1, 1, height, device=x.device)
    columns = torch.linspace(-1, 1, width, device=x.device)
    ys, xs = torch.meshgrid(rows, columns, indexing="ij")
    lead = x.shape[:-3]
    flow = flow.expand(*lead, *flow.shape[-3:]).reshape(-1, *flow.shape[-3:])
    scale = torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)], device=x.device)
    grid = torch.stack((xs, ys), -1) + flow.movedim(-3, -1) * scale
    moved = nn.functional.grid_sample(x.reshape(-1, *x.shape[-3:]), grid, padding_mode="border", align_corners=True)
    return moved.reshape(x.shape)


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Same-size convolution of ``x`` ``(N, C, H, W)`` or ``(K, b, C, H, W)`` with ``kernel`` of each class."""
    k = kernel.shape[-1]
    if x.dim() == 4:
        return nn.functional.conv2d(
            nn.functional.pad(x, [k // 2] * 4, mode="replicate"), kernel.reshape(kernel.shape[-4:])
        )
    classes, batch, channels, height, width = x.shape
    stacked = nn.functional.pad(
        x.transpose(0, 1).reshape(batch, classes * channels, height, width), [k // 2] * 4, mode="replicate"
    )
    out = nn.functional.conv2d(stacked, kernel.reshape(classes * kernel.shape[-4], *kernel.shape[-3:]), groups=classes)
    return out.reshape(batch, classes, channels, height, width).transpose(0, 1)
