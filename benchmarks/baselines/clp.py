"""CLP: prune channels with an outlying Lipschitz bound, without data (Zheng et al., arXiv 2208.03111)."""

from __future__ import annotations

import torch

from benchmarks.baselines.graph import norms, tensor
from benchmarks.parts import NotApplicableError, Parts
from modelmend.model.classifier import Classifier
from modelmend.progress import Progress, silent

U = 3.0
"""Standard deviations over the layer's mean (the paper's default for CIFAR-10)."""


def channel_lipschitz_pruning(
    classifier: Classifier, parts: Parts, seed: int, *, effort: float = 1.0, progress: Progress = silent
) -> Classifier:
    """Zero channel ``k`` where ``|gamma_k / sigma_k| * spectral_norm(W_k) > mean + u * std`` over its layer."""
    pruned = classifier.clone()
    layers = [norm for norm in norms(pruned.graph) if norm.convolution is not None]
    if not layers:
        raise NotApplicableError("CLP needs a batch norm after a convolution")
    with torch.no_grad():
        for index, norm in enumerate(layers):
            kernel = tensor(pruned.graph, str(norm.convolution))
            gamma, beta, var = (tensor(pruned.graph, name) for name in (norm.weight, norm.bias, norm.var))
            scale = (gamma / (var + norm.epsilon).sqrt()).abs()
            flat = kernel.reshape(kernel.shape[0], kernel.shape[1], -1) * scale[:, None, None]
            bound = torch.linalg.matrix_norm(flat, ord=2)
            outlying = bound > bound.mean() + U * bound.std()
            gamma[outlying] = 0
            beta[outlying] = 0
            progress("CLP", index + 1, len(layers))
    return pruned
