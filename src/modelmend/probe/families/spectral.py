"""Additive triggers of few waves: the counterpart of a patch, small in the frequency domain and spread over the image.

Sinusoids (SIG, arXiv 1902.11237) and low-frequency triggers (LF, arXiv 2104.03413) are faint everywhere, so neither a
small mask nor a small norm singles them out; few waves do. The parametrisation is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modelmend.probe.form import AddedForm, Parameters

LOW = 0.25
"""Highest frequency, in periods a pixel."""


class SpectralForm(AddedForm):
    """``x + H c`` with ``H`` the orthonormal Hartley transform; size = ``sum_f ||c_f||_2 / sqrt(D)``.

    ``c_f`` holds the channels of the frequencies ``f`` and ``-f``, so that the phase does not count, and the sum makes a
    small size mean few waves. For a single wave it is the root mean square change as a share of the range.

    Args:
        x: Images ``(N, C, H, W)`` that show shape and range.
    """

    largest = 1.0

    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
        self.band = _band(*self.shape[1:]).to(x.device)

    def start(self, classes: int, generator: torch.Generator) -> Parameters:
        """A faint even spectrum of random sign."""
        return {"waves": torch.randn((classes, *self.shape), generator=generator)}

    def parts(self, parameters: Parameters) -> dict[str, Tensor]:
        """The perturbation and the range."""
        return self.added(hartley(parameters["waves"]))

    def size(self, parameters: Parameters) -> Tensor:
        """Sum over the frequencies ``(K,)``."""
        return _each(parameters["waves"]).sum(1) / math.sqrt(2 * math.prod(self.shape))

    def project(self, parameters: Parameters, radius: Tensor) -> None:
        """Nearest in the ball of the norm: every wave shrinks by the same amount, down to none."""
        waves = parameters["waves"]
        waves.mul_(self.band)
        length, limit = _each(waves), radius * math.sqrt(2 * math.prod(self.shape))
        ordered = length.sort(1, descending=True).values
        count = torch.arange(1, length.shape[1] + 1, device=waves.device)
        taken = (ordered.cumsum(1) - limit[:, None]) / count
        last = (ordered > taken).sum(1, keepdim=True).clamp_min(1)
        cut = torch.where(length.sum(1) > limit, taken.gather(1, last - 1).squeeze(1), torch.zeros_like(limit))
        factor = ((length - cut[:, None]) / length.clamp_min(1e-12)).clamp(min=0)
        waves.mul_(factor.reshape(len(waves), 1, *waves.shape[2:]))

    def step(self, parameters: Parameters, radius: Tensor) -> dict[str, Tensor]:
        """A step as long as the radius."""
        del parameters
        return {"waves": radius}


def hartley(waves: Tensor) -> Tensor:
    """Orthonormal 2-D Hartley transform of the last two axes; its own inverse."""
    transformed = torch.fft.fft2(waves, norm="ortho")
    result: Tensor = transformed.real - transformed.imag
    return result


def _each(waves: Tensor) -> Tensor:
    """``||c_f||_2 / sqrt 2``, so that ``f`` and ``-f`` share their length, ``(K, H W)``."""
    mirrored = waves.flip((-2, -1)).roll((1, 1), (-2, -1))
    return ((waves.square() + mirrored.square()).sum(1) / 2).sqrt().flatten(1)


def _band(height: int, width: int) -> Tensor:
    """1 for frequencies of at most a quarter of the side, else 0, ``(H, W)``."""
    rows, columns = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
    inside: Tensor = rows[:, None].square() + columns.square() <= LOW**2
    return inside.float()
