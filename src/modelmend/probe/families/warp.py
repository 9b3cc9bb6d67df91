"""Warping triggers: one smooth displacement of the pixels of every image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modelmend.probe.form import Parameters, per_class

GRID = 4
"""Points along a side, as many as WaNet's. With 8 the search loses itself: more to fit, and nothing smoother."""


class WarpForm:
    """Displacements on a coarse grid, enlarged bicubically; size = root mean square displacement in pixels.

    The parametrisation of WaNet (arXiv 2102.10369).

    Args:
        x: Images ``(N, C, H, W)`` that show the shape.
    """

    def __init__(self, x: Tensor) -> None:
        self.height, self.width = x.shape[-2:]
        self.grid = min(GRID, self.height // 2, self.width // 2)
        self.largest = 0.15 * min(self.height, self.width)

    def start(self, classes: int, generator: torch.Generator) -> Parameters:
        """Random displacements of a fifth of the largest size."""
        noise = torch.randn((classes, 2, self.grid, self.grid), generator=generator)
        return {"flow": 0.2 * self.largest * noise}

    def parts(self, parameters: Parameters) -> dict[str, Tensor]:
        """The displacement of each pixel."""
        flow = parameters["flow"]
        return {"flow": nn.functional.interpolate(flow, (self.height, self.width), mode="bicubic", align_corners=True)}

    def size(self, parameters: Parameters) -> Tensor:
        """Root mean square displacement on the grid ``(K,)``, pixels."""
        return parameters["flow"].flatten(1).square().mean(1).sqrt()

    def project(self, parameters: Parameters, radius: Tensor) -> None:
        """Scale down to the radius."""
        flow = parameters["flow"]
        flow.mul_(per_class((radius / self.size(parameters).clamp_min(1e-12)).clamp(max=1), flow))

    def step(self, parameters: Parameters, radius: Tensor) -> dict[str, Tensor]:
        """A step as long as the radius."""
        del parameters
        return {"flow": radius}
