"""A suspect model as the rest of modelmend sees it: samples in 0..1 go in, logits come out, passes are counted."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from modelmend.metrics import count_passes
from modelmend.records import Preprocessing


class Classifier(nn.Module):
    """A graph of aten operators with its preprocessing.

    Args:
        graph: The model form, eval mode, one tensor in, logits or probabilities ``(N, classes)`` out.
        preprocessing: How samples become inputs.
        num_classes: Size of the output's second axis.
        probabilities: The model ends in a softmax; its output is turned into log-probabilities.
    """

    def __init__(
        self, graph: GraphModule, preprocessing: Preprocessing, num_classes: int, *, probabilities: bool = False
    ) -> None:
        super().__init__()
        self.graph = graph
        self.preprocessing = preprocessing
        self.num_classes = num_classes
        self.probabilities = probabilities

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        first = next(self.graph.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters (float32 when there are none)."""
        return next((p.dtype for p in self.graph.parameters() if p.is_floating_point()), torch.float32)

    def model_input(self, x: Tensor) -> Tensor:
        """Turn stored samples ``(N, ...)`` into what the model was trained on."""
        p = self.preprocessing
        x = x.to(self.device)
        if p.kind == "raw":
            return x.to(self.dtype) if x.is_floating_point() else x
        low, high = p.input_range
        shape = (1, -1) + (1,) * (x.dim() - 2)
        mean, std = (torch.tensor(v, device=x.device, dtype=x.dtype).reshape(shape) for v in (p.mean, p.std))
        return ((x * (high - low) + low - mean) / std).to(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, classes)`` in float32 of samples ``(N, ...)``; counts the passes."""
        backward = torch.is_grad_enabled() and (
            x.requires_grad or any(p.requires_grad for p in self.graph.parameters())
        )
        count_passes(len(x), backward=backward)
        return self.logits(self.graph(self.model_input(x)))

    def logits(self, output: Tensor) -> Tensor:
        """The graph's raw output as float32 logits."""
        output = output.float()
        return output.clamp_min(1e-12).log() if self.probabilities else output

    @torch.no_grad()
    def predict(self, x: Tensor, batch_size: int = 256) -> Tensor:
        """Top-1 class ``(N,)`` on the CPU, in batches, without gradients."""
        if not len(x):
            return torch.empty(0, dtype=torch.long)
        return torch.cat([self(part).argmax(1).cpu() for part in torch.split(x, batch_size)])

    def clone(self) -> Classifier:
        """An independent copy; the original is never edited."""
        return copy.deepcopy(self)

    def frozen(self) -> Classifier:
        """Self with gradients of all parameters off (input gradients still flow)."""
        for parameter in self.graph.parameters():
            parameter.requires_grad_(False)
        return self
