"""Plain fine-tuning on the clean samples (the FT row of BackdoorBench: SGD, lr 0.01, 100 epochs)."""

from __future__ import annotations

import torch
from torch import nn

from benchmarks.baselines.graph import parameters, trainable
from benchmarks.parts import Parts, batches
from modelmend.editing.layers import set_batch_norm_training
from modelmend.model.classifier import Classifier
from modelmend.progress import Progress, silent

EPOCHS, LR, BATCH = 100, 0.01, 128


def fine_tuning(
    classifier: Classifier, parts: Parts, seed: int, *, effort: float = 1.0, progress: Progress = silent
) -> Classifier:
    """Train all weights on the repair split, batch norm in training mode; the last epoch counts."""
    tuned = trainable(classifier)
    set_batch_norm_training(tuned.graph, True)
    x, y = parts.repair
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(parameters(tuned), LR, momentum=0.9, weight_decay=5e-4)
    epochs = max(1, round(EPOCHS * effort))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        for images, labels in batches(x, y, BATCH, generator):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(tuned(images), labels))
            optimizer.step()
        schedule.step()
        progress("fine-tuning", epoch + 1, epochs)
    set_batch_norm_training(tuned.graph, False)
    return tuned.frozen()
