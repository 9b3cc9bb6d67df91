"""Bounded additive triggers: one perturbation added to every sample, small in the L2 norm."""

from __future__ import annotations

import torch
from torch import Tensor

from modelmend.probe.form import AddedForm, Parameters, per_class


class AdditiveForm(AddedForm):
    """``x + d`` with ``size = ||d||_2 / (sqrt(D) range)``: root mean square of the change as a share of the range.

    Args:
        x: Samples ``(N, ...)`` that show shape and range.
    """

    largest = 0.4

    def start(self, classes: int, generator: torch.Generator) -> Parameters:
        """White noise of a tenth of the largest size."""
        noise = torch.randn((classes, *self.shape), generator=generator)
        return {"delta": 0.1 * self.largest * noise}

    def parts(self, parameters: Parameters) -> dict[str, Tensor]:
        """The perturbation and the range."""
        return self.added(parameters["delta"])

    def size(self, parameters: Parameters) -> Tensor:
        """Root mean square of the change ``(K,)``."""
        return parameters["delta"].flatten(1).square().mean(1).sqrt()

    def project(self, parameters: Parameters, radius: Tensor) -> None:
        """Scale down to the radius."""
        delta = parameters["delta"]
        delta.mul_(per_class((radius / self.size(parameters).clamp_min(1e-12)).clamp(max=1), delta))

    def step(self, parameters: Parameters, radius: Tensor) -> dict[str, Tensor]:
        """A step as long as the radius."""
        del parameters
        return {"delta": radius}
