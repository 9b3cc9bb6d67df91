"""Sample-dependent triggers: a small network draws the change for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from modelmend.probe.families.additive import AdditiveForm
from modelmend.probe.form import Form, Parameters

HIDDEN = 6
KERNEL = 3


class GeneratorForm:
    """``x + r g(x) / max(r, rms g(x))``, ``g`` two convolutions and a fixed picture; size = ``r``, as for addition.

    A stand-in for the U-Net of BTI-DBF (arXiv 2401.15002) that fits on a CPU; it reaches triggers that depend on the
    sample, such as warps, quantization and dither.

    Args:
        x: Images ``(N, C, H, W)`` that show the shape.
    """

    largest = 0.4

    def __init__(self, x: Tensor) -> None:
        self.shape = tuple(x.shape[1:])

    def start(self, classes: int, generator: torch.Generator) -> Parameters:
        """Random filters, a faint random picture."""
        channels = self.shape[0]

        def noise(*shape: int) -> Tensor:
            return torch.randn((classes, *shape), generator=generator)

        return {
            "inner": noise(HIDDEN, channels, KERNEL, KERNEL) / KERNEL,
            "offset": 0.1 * noise(HIDDEN, 1, 1),
            "outer": 0.3 * noise(channels, HIDDEN, KERNEL, KERNEL) / KERNEL,
            "picture": 0.1 * noise(*self.shape),
            "radius": torch.full((classes,), self.largest),
        }

    def parts(self, parameters: Parameters) -> dict[str, Tensor]:
        """The network as it is."""
        return dict(parameters)

    def size(self, parameters: Parameters) -> Tensor:
        """Root mean square of the change that is allowed ``(K,)``."""
        return parameters["radius"]

    def project(self, parameters: Parameters, radius: Tensor) -> None:
        """Set the radius; the network is scaled where it is applied."""
        parameters["radius"].copy_(radius)

    def step(self, parameters: Parameters, radius: Tensor) -> dict[str, Tensor]:
        """A tenth of each parameter's own scale; the radius is not learned."""
        steps = {
            name: 0.5 * value.reshape(len(value), -1).square().mean(1).sqrt().clamp_min(0.02)
            for name, value in parameters.items()
        }
        return steps | {"radius": torch.zeros_like(radius)}


def generator_or_additive(x: Tensor) -> Form:
    """The generator for images, plain addition for other samples."""
    return GeneratorForm(x) if x.dim() == 4 else AdditiveForm(x)
