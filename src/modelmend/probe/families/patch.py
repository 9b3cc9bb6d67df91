"""Patch inversion: the smallest mask and pattern that lead everything to one class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modelmend.probe.form import Parameters, bound_parts, per_class, sample_range


class PatchForm:
    """``x + m (p - x)``, the mask shared by the channels; size = sum of the mask (Neural Cleanse, S&P 2019).

    Args:
        x: Samples ``(N, ...)`` that show shape and range.
    """

    def __init__(self, x: Tensor) -> None:
        self.low, self.high = sample_range(x)
        self.shape = tuple(x.shape[1:])
        self.mask_shape = (1, *self.shape[1:]) if len(self.shape) == 3 else self.shape
        self.largest = 0.5 * math.prod(self.mask_shape)

    def start(self, classes: int, generator: torch.Generator) -> Parameters:
        """A nearly even mask, a random pattern from the middle of the range."""
        mask = 0.5 + 0.1 * torch.rand((classes, *self.mask_shape), generator=generator)
        middle = 0.3 + 0.4 * torch.rand((classes, *self.shape), generator=generator)
        low, high = self.low.cpu(), self.high.cpu()
        return {"mask": mask, "pattern": low + (high - low) * middle}

    def parts(self, parameters: Parameters) -> dict[str, Tensor]:
        """Mask, pattern and range."""
        return {**parameters, **bound_parts(self.low, self.high, len(parameters["mask"]))}

    def size(self, parameters: Parameters) -> Tensor:
        """Sum of the mask ``(K,)``."""
        return parameters["mask"].flatten(1).sum(1)

    def project(self, parameters: Parameters, radius: Tensor) -> None:
        """Nearest mask in ``{0 <= m <= 1, sum m <= radius}``, nearest pattern in the range of the samples."""
        mask, pattern = parameters["mask"], parameters["pattern"]
        flat = mask.flatten(1)
        low, high = torch.zeros_like(radius), flat.amax(1).clamp_min(0)
        for _ in range(24):  # bisection for the threshold t with sum clamp(m - t, 0, 1) = radius
            middle = (low + high) / 2
            over = (flat - middle[:, None]).clamp(0, 1).sum(1) > radius
            low, high = torch.where(over, middle, low), torch.where(over, high, middle)
        threshold = torch.where(flat.clamp(0, 1).sum(1) > radius, high, torch.zeros_like(high))
        mask.copy_((mask - per_class(threshold, mask)).clamp(0, 1))
        pattern.copy_(torch.minimum(torch.maximum(pattern, self.low), self.high))

    def step(self, parameters: Parameters, radius: Tensor) -> dict[str, Tensor]:
        """Opacity moves by the mean opacity or a twentieth, the pattern by its range."""
        del parameters
        return {
            "mask": (radius / math.prod(self.mask_shape)).clamp_min(0.05),
            "pattern": torch.ones_like(radius) * float((self.high - self.low).mean()),
        }
