"""Re-estimate batch-norm statistics on clean samples."""

from __future__ import annotations

import torch
from torch import Tensor

from modelmend.editing.layers import (
    batch_norm_arguments,
    batch_norms,
    restore_batch_norm_arguments,
    set_batch_norm_training,
)
from modelmend.metrics import count_passes
from modelmend.model.classifier import Classifier


@torch.no_grad()
def reestimate(classifier: Classifier, x: Tensor, batch_size: int = 128) -> bool:
    """Replace every running mean and variance by those of clean samples, in place.

    With one batch the statistics are that batch's own, as in training; over several batches they are averaged. Note
    that a batch norm undoes any scaling of the weights before it once its statistics are re-estimated: this repairs
    statistics that were bent by poisoned training data, it is not a way to carry an edit.

    Args:
        classifier: Changed in place.
        x: Clean samples ``(N, ...)`` in 0..1, at least 2.
        batch_size: Samples a batch; a last batch of one sample is left out.

    Returns:
        Whether there was anything to re-estimate.
    """
    if not batch_norms(classifier.graph) or len(x) < 2:
        return False
    arguments = batch_norm_arguments(classifier.graph)
    try:
        for i, part in enumerate(part for part in torch.split(x, batch_size) if len(part) > 1):
            set_batch_norm_training(classifier.graph, True, 1 / (i + 1))
            count_passes(len(part))
            classifier.graph(classifier.model_input(part))
    finally:
        restore_batch_norm_arguments(classifier.graph, arguments)
    return True
