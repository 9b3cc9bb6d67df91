"""FT-SAM: fine-tuning with adaptive sharpness-aware minimisation (Zhu et al., arXiv 2304.11823)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.baselines.graph import parameters, trainable
from benchmarks.parts import Parts, batches
from modelmend.editing.layers import set_batch_norm_training
from modelmend.model.classifier import Classifier
from modelmend.progress import Progress, silent

EPOCHS, LR, BATCH, RHO = 100, 0.01, 128, 2.0


def ft_sam(
    classifier: Classifier, parts: Parts, seed: int, *, effort: float = 1.0, progress: Progress = silent
) -> Classifier:
    """``w <- w - lr * grad L(w + e)`` with ``e = rho * w^2 g / |w g|``; the last epoch counts."""
    tuned = trainable(classifier)
    set_batch_norm_training(tuned.graph, True)
    x, y = parts.repair
    generator = torch.Generator().manual_seed(seed)
    weights = parameters(tuned)
    optimizer = torch.optim.SGD(weights, LR, momentum=0.9, weight_decay=5e-4)
    epochs = max(1, round(EPOCHS * effort))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for images, labels in batches(x, y, BATCH, generator):
            steps = _ascent(weights, torch.autograd.grad(_loss(tuned, images, labels), weights))
            _add(weights, steps, 1)
            optimizer.zero_grad()
            torch.autograd.backward(_loss(tuned, images, labels))
            _add(weights, steps, -1)
            optimizer.step()
        schedule.step()
        progress("FT-SAM", epoch + 1, epochs)
    set_batch_norm_training(tuned.graph, False)
    return tuned.frozen()


def _loss(classifier: Classifier, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(classifier(x), y, label_smoothing=0.1)


@torch.no_grad()
def _ascent(weights: list[nn.Parameter], gradients: tuple[Tensor, ...]) -> list[Tensor]:
    pairs = list(zip(weights, gradients, strict=True))
    norm = torch.stack([(w.abs() * g).norm() for w, g in pairs]).norm() + 1e-12
    return [RHO * w.square() * g / norm for w, g in pairs]


@torch.no_grad()
def _add(weights: list[nn.Parameter], steps: list[Tensor], sign: int) -> None:
    for weight, step in zip(weights, steps, strict=True):
        weight.add_(step, alpha=sign)
