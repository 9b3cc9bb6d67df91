"""How a trigger is parametrised: what is free, how large it is, and how it is kept within a radius."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from modelmend.probe.trigger import apply_parts

Parameters = dict[str, Tensor]
"""Free tensors, each with a leading class axis ``(K, ...)``."""


class Form(Protocol):
    """One parametrisation, for ``K`` classes at once, made for samples of one shape and range."""

    largest: float
    """Radius beyond which the trigger replaces the sample: searching on is pointless."""

    def start(self, classes: int, generator: torch.Generator) -> Parameters:
        """Parameters to begin with; the caller projects them."""
        ...

    def parts(self, parameters: Parameters) -> dict[str, Tensor]:
        """Trigger parts with the class axis in front: ``(K, ...)``."""
        ...

    def size(self, parameters: Parameters) -> Tensor:
        """Size of each class's trigger ``(K,)``."""
        ...

    def project(self, parameters: Parameters, radius: Tensor) -> None:
        """Move the parameters, in place, to the nearest of size <= ``radius`` ``(K,)``."""
        ...

    def step(self, parameters: Parameters, radius: Tensor) -> dict[str, Tensor]:
        """Root mean square over the elements of one full step of each parameter ``(K,)``."""
        ...


def triggered(form: Form, parameters: Parameters, x: Tensor) -> Tensor:
    """Apply each class's trigger to its samples ``(K, b, ...)``."""
    return apply_parts({name: part.unsqueeze(1) for name, part in form.parts(parameters).items()}, x)


def sample_range(x: Tensor) -> tuple[Tensor, Tensor]:
    """``low`` and ``high`` ``(...)`` of samples ``(N, ...)``: 0 and 1 for images, else the range seen of each value."""
    low, high = x.amin(0), x.amax(0)
    if x.dim() == 4 and float(low.min()) >= 0 and float(high.max()) <= 1:
        return torch.zeros_like(low), torch.ones_like(high)
    return low, high


def bound_parts(low: Tensor, high: Tensor, classes: int) -> dict[str, Tensor]:
    """``low`` and ``high`` as trigger parts; none when they are the default 0 and 1."""
    if bool((low == 0).all()) and bool((high == 1).all()):
        return {}
    return {"low": low.expand(classes, *low.shape), "high": high.expand(classes, *high.shape)}


class AddedForm:
    """What the forms that add one perturbation to every sample share: shape and range of the samples, and the parts.

    Args:
        x: Samples ``(N, ...)`` that show shape and range.
    """

    def __init__(self, x: Tensor) -> None:
        self.low, self.high = sample_range(x)
        self.shape = tuple(x.shape[1:])
        self.span = (self.high - self.low).clamp_min(1e-6)

    def added(self, delta: Tensor) -> dict[str, Tensor]:
        """Parts of perturbations ``(K, ...)`` that are given as shares of the range."""
        return {"delta": delta * self.span, **bound_parts(self.low, self.high, len(delta))}


def per_class(values: Tensor, like: Tensor) -> Tensor:
    """``(K,)`` shaped to broadcast over ``like`` ``(K, ...)``."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
