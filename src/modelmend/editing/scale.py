"""The edit itself: scale weights by how much their channel responds to the trigger.

``W' = W * (1 + s * (mean(a) - a) / std(a))`` per output channel or input-output pair, on the last k weight layers,
after Hsieh et al., "Activation-guided model editing", arXiv 2407.07662: activations are negated, normalised by mean
and deviation, shifted to mean one and multiplied into the weights, so that what responds most is scaled down. Ours:
the contrast as ``a``, the strength ``s``, the bounds of the factor, and carrying it through the batch norm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from modelmend.editing.layers import WeightLayer, tensors
from modelmend.editing.response import Response
from modelmend.model.classifier import Classifier

Form = Literal["channel", "pair", "clean"]
BatchNormChoice = Literal["frozen", "edited"]


def factors(a: Tensor, s: float, bounds: tuple[float, float]) -> Tensor:
    """``1 + s * (mean(a) - a) / std(a)``, clamped.

    Args:
        a: Responses of one layer, any shape.
        s: Strength; 0 gives ones.
        bounds: Lowest and highest factor. Below 0 a weight would change its sign.

    Returns:
        Factors, shaped like ``a``; ones when all responses are equal or there is one only.
    """
    spread = a.std() if a.numel() > 1 else torch.zeros(())
    if not float(spread) > 0:
        return torch.ones_like(a)
    return (1 + s * (a.mean() - a) / spread).clamp(*bounds)


@torch.no_grad()
def scale_layers(
    classifier: Classifier,
    layers: Sequence[WeightLayer],
    responses: dict[str, Response],
    *,
    form: Form,
    s: float,
    bounds: tuple[float, float],
    batch_norm: BatchNormChoice,
) -> None:
    """Edit the weights of the layers in place.

    Args:
        classifier: Changed in place.
        layers: The last k weight layers.
        responses: Weight name -> response.
        form: ``channel``: a = contrast of the output channel; ``pair``: a = what input channel j adds to output i
            under the trigger, ``sum(W_ij) * contrast_j``; ``clean``: a = response to clean samples (the paper's form
            for an unknown trigger).
        s: Strength.
        bounds: Of the factor.
        batch_norm: ``frozen``: only the weight changes, so a batch norm behind it still subtracts its old mean.
            ``edited``: bias and running mean are scaled too, which equals scaling the batch norm's ``scale``.
    """
    own = tensors(classifier.graph)
    for layer in layers:
        weight, response = own[layer.weight], responses[layer.weight]
        outputs, inputs = weight.shape[0], weight.shape[1]
        if form == "pair" and response.input_contrast.numel() == inputs:
            kernel = weight.detach().double().cpu().reshape(outputs, inputs, -1).sum(2)
            factor = factors(kernel * response.input_contrast, s, bounds)
            weight.mul_(_like(factor, weight, 2))
            continue
        a = response.clean if form == "clean" else response.contrast
        factor = factors(a, s, bounds)
        weight.mul_(_like(factor, weight, 1))
        if batch_norm == "edited":
            follows = [layer.bias, layer.norm.mean if layer.norm else None]
            for name in follows:
                if name is not None:
                    own[name].mul_(_like(factor, own[name], 1))


def _like(factor: Tensor, tensor: Tensor, dims: int) -> Tensor:
    return factor.reshape(*factor.shape, *(1,) * (tensor.dim() - dims)).to(tensor.device, tensor.dtype)
