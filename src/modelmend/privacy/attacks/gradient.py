"""White-box attack: the gradient of a member's loss is small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from modelmend.metrics import count_passes
from modelmend.privacy.attacks.base import Access, View


@dataclass(frozen=True)
class GradientNorm:
    """White-box: norm of the loss gradient over all parameters. Source: Nasr et al. 2019, arXiv 1812.00910.

    Attributes:
        chunk: Samples whose gradients are held in memory at once.
    """

    name: str = "gradient-norm"
    access: Access = "white-box"
    chunk: int = 32

    def score(self, view: View) -> Tensor:
        """Minus the log of the norm."""
        classifier = view.classifier
        graph = classifier.graph
        parameters = {k: p.detach() for k, p in graph.named_parameters() if p.is_floating_point()}

        def loss(values: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            output = torch.func.functional_call(graph, values, (x[None],))
            return functional.cross_entropy(classifier.logits(output), y[None])

        gradient: Callable[..., Any] = torch.func.grad(loss)
        y = view.y.to(classifier.device)
        norms = []
        count_passes(len(y), backward=True)
        for i in range(0, len(y), self.chunk):
            x = classifier.model_input(view.x[i : i + self.chunk])
            norms.append(_norms(gradient, parameters, x, y[i : i + self.chunk]))
        return -torch.cat(norms).double().clamp_min(1e-30).log().cpu()


def _norms(gradient: Callable[..., Any], parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    try:
        batched = torch.func.vmap(gradient, in_dims=(None, 0, 0))(parameters, x, y)
        return torch.stack([g.double().flatten(1).square().sum(1) for g in batched.values()]).sum(0).sqrt()
    except (RuntimeError, NotImplementedError):  # an operator without a batching rule: one sample at a time
        each = (gradient(parameters, a, b) for a, b in zip(x, y, strict=True))
        return torch.stack([torch.stack([g.double().norm() for g in grads.values()]).norm() for grads in each])
