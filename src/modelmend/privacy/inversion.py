"""Model inversion: reconstruct what the model takes for each class, from gradients with respect to its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from modelmend.model.classifier import Classifier

_COMPONENTS = 32


@dataclass(frozen=True)
class Prior:
    """A linear prior of the domain: ``x = mean + weights @ basis``, from images that the model was not trained on.

    Attributes:
        mean: ``(C, H, W)``.
        basis: ``(k, C, H, W)``, each direction scaled to one standard deviation.
    """

    mean: Tensor
    basis: Tensor

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Random images ``(n, C, H, W)`` of the prior: the control."""
        weights = torch.randn(n, len(self.basis), generator=generator)
        return self.decode(weights.to(self.mean.device))

    def decode(self, weights: Tensor) -> Tensor:
        """Images in 0..1 of weights ``(n, k)``."""
        return (self.mean + torch.einsum("nk,kchw->nchw", weights, self.basis)).clamp(0, 1)


def linear_prior(images: Tensor) -> Prior:
    """Principal components of images ``(N, C, H, W)``, N at least 2."""
    flat = images.flatten(1)
    mean = flat.mean(0)
    k = min(_COMPONENTS, len(images) - 1, flat.shape[1])
    _, spread, directions = torch.linalg.svd((flat - mean).double(), full_matrices=False)
    basis = directions[:k] * (spread[:k, None] / (len(images) - 1) ** 0.5)
    shape = images.shape[1:]
    return Prior(mean.reshape(shape), basis.to(images.dtype).reshape(k, *shape))


def invert_pixels(
    classifier: Classifier, classes: Tensor, start: Tensor, *, steps: int, smooth: float = 0.01
) -> Tensor:
    """MI-Face with total variation: ``min CE(f(x), class) + smooth * TV(x)`` over pixels.

    Source: Fredrikson et al., CCS 2015. ``smooth`` is per pixel and ours.

    Args:
        classifier: The attacked model; gradients with respect to its input are needed (white-box).
        classes: Classes ``(n,)`` to reconstruct.
        start: First images ``(n, C, H, W)`` in 0..1.
        steps: Gradient steps.
        smooth: Weight of the total variation.
    """

    def loss(x: Tensor) -> Tensor:
        wanted = classes.to(classifier.device)
        return functional.cross_entropy(classifier(x), wanted, reduction="sum") + smooth * _variation(x)

    x = start.detach().clone()
    return _descend(x, lambda value: value.clamp(0, 1), loss, steps)


def invert_with_prior(
    classifier: Classifier, classes: Tensor, prior: Prior, *, steps: int, pull: float = 0.02
) -> Tensor:
    """The same over the weights of a linear prior, with a Gaussian pull to its mean; the strongest attack for its cost.

    Args:
        classifier: The attacked model.
        classes: Classes ``(n,)`` to reconstruct.
        prior: Of the domain.
        steps: Gradient steps.
        pull: Weight of the squared weights.
    """

    def loss(weights: Tensor) -> Tensor:
        wanted = classes.to(classifier.device)
        fit = functional.cross_entropy(classifier(prior.decode(weights)), wanted, reduction="sum")
        return fit + pull * weights.square().sum()

    start = torch.zeros(len(classes), len(prior.basis), device=prior.mean.device)
    return prior.decode(_descend(start, lambda value: value, loss, steps))


def _descend(
    start: Tensor, project: Callable[[Tensor], Tensor], loss: Callable[[Tensor], Tensor], steps: int
) -> Tensor:
    value = start.requires_grad_(True)
    optimizer = torch.optim.Adam([value], lr=0.05)
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(loss(value), [value])
        value.grad = gradient
        optimizer.step()
        with torch.no_grad():
            value.copy_(project(value))
    return value.detach()


def _variation(x: Tensor) -> Tensor:
    return (x[..., 1:, :] - x[..., :-1, :]).abs().sum() + (x[..., :, 1:] - x[..., :, :-1]).abs().sum()
