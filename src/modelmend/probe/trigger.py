"""A candidate trigger: a change of the input, universal over samples, that can be stored as plain tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from modelmend.errors import ArtifactError

PARTS = ("flow", "inner", "offset", "outer", "picture", "radius", "mask", "pattern", "delta", "low", "high")
DRAWN = ("inner", "offset", "outer", "picture", "radius")
"""Parts of a small network that draws the change for each image."""


@dataclass(frozen=True)
class Trigger:
    """A trigger made of up to four parts, applied in this order: warp, drawing, patch, addition; then clamped.

    Attributes:
        family: Name of the family that found it.
        target: Class that it leads to, if it has one.
        parts: ``flow`` (2, H, W) displacement in pixels (x, y); ``DRAWN``: ``inner`` (h, C, k, k), ``offset``
            (h, 1, 1), ``outer`` (C, h, k, k), ``picture`` (C, H, W), ``radius`` () root mean square of the change;
            ``mask`` (1 or C, H, W) in 0..1 with ``pattern`` (C, H, W); ``delta`` (C, H, W); ``low`` and ``high``,
            the range of samples when it is not 0..1. Samples need not be images for mask, pattern and delta.
        lead: How far its class is ahead of the next one to its family, in units of the family's noise; negative where
            another class is ahead, ``None`` where classes were not compared.
    """

    family: str
    target: int | None
    parts: Mapping[str, Tensor] = field(repr=False)
    lead: float | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Triggered samples, of the shape and on the device of ``x`` ``(N, ...)``; gradients flow to ``x``."""
        return apply_parts({name: part.to(x.device) for name, part in self.parts.items()}, x)

    def state(self) -> dict[str, Tensor]:
        """The parts as contiguous float32 CPU tensors, for safetensors."""
        return {name: part.detach().float().cpu().contiguous() for name, part in self.parts.items()}

    @classmethod
    def from_state(
        cls, family: str, target: int | None, state: Mapping[str, Tensor], lead: float | None = None
    ) -> Trigger:
        """Rebuild from ``state()``; raises ``ArtifactError`` on unknown or missing parts."""
        unknown = sorted(set(state) - set(PARTS))
        if unknown or not _whole(state):
            raise ArtifactError("these tensors are no trigger", field=", ".join(unknown or sorted(state)))
        return cls(family, target, dict(state), lead)


def apply_parts(parts: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Apply the parts to ``x``; parts may carry leading axes that broadcast against those of ``x``.

    Args:
        parts: As in ``Trigger``; with a leading class axis ``(K, 1, ...)`` when ``x`` is ``(K, b, ...)``.
        x: Samples ``(N, ...)`` or ``(K, b, ...)``; flow and drawing need images.
    """
    if "flow" in parts:
        x = warp(x, parts["flow"])
    if "inner" in parts:
        x = x + drawn(x, parts)
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


def drawn(x: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    """Change of each sample: ``r g / max(r, rms g)`` with ``g = outer * relu(inner * x + offset) + picture``.

    Args:
        x: Images ``(..., C, H, W)``.
        parts: The parts named in ``DRAWN``.
    """
    hidden = torch.relu(_convolve(x, parts["inner"]) + parts["offset"])
    change = _convolve(hidden, parts["outer"]) + parts["picture"]
    radius = parts["radius"].reshape(*parts["radius"].shape, 1, 1, 1)
    rms = change.square().mean((-3, -2, -1), keepdim=True).add(1e-12).sqrt()
    return radius * change / torch.maximum(radius, rms)


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Same-size convolution of ``(N, C, H, W)``, or of ``(K, b, C, H, W)`` with each class's kernel ``(K, 1, ...)``."""
    pad = kernel.shape[-1] // 2
    if x.dim() == 4:
        return nn.functional.conv2d(x, kernel, padding=pad)
    classes, batch, channels, height, width = x.shape
    stacked = x.transpose(0, 1).reshape(batch, classes * channels, height, width)
    out = nn.functional.conv2d(stacked, kernel.flatten(0, 2), padding=pad, groups=classes)
    return out.reshape(batch, classes, -1, height, width).transpose(0, 1)


def _whole(state: Mapping[str, Tensor]) -> bool:
    drawing = set(state) & set(DRAWN)
    whole = not drawing or len(drawing) == len(DRAWN)
    return (
        whole and bool(drawing or set(state) & {"flow", "mask", "delta"}) and ("mask" in state) == ("pattern" in state)
    )
