"""Keep how often each class is answered: what fine-tuning moved between the classes is put back in the last bias.

Unlearning triggers moves a small network's answers on clean samples, too, most often towards the class that is unlearned:
its features are what changes. Most of that is one number for each class, and the shares in which the suspect gives its
answers say what it was. Putting it back costs no label, and wins accuracy and lowers the triggers' success at once. The
idea is that of adjusting a classifier to known class shares (Saerens, Latinne and Decaestecker, "Adjusting the outputs of
a classifier to new a priori probabilities", Neural Computation 14(1), 2002), turned round: the shares are known, the bias is not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modelmend.editing.layers import tensors, weight_layers
from modelmend.model.classifier import Classifier

_ROUNDS, _CLOSE = 200, 1e-4
_LEAST = 1e-6
"""Share under which a class is taken for never answered."""
_MOST = 10.0
"""Largest shift of a score, either way."""


def prior_shift(logits: Tensor, shares: Tensor) -> Tensor:
    """What to add to the scores so that their mean probabilities are as given.

    The fixed point of ``d += log(shares / mean softmax(logits + d))``, held to 10 either way; it sums to zero before that.

    Args:
        logits: Scores ``(N, classes)`` of samples.
        shares: Wanted mean probability of each class ``(classes,)``, 0..1, summing to one.

    Returns:
        ``(classes,)``; zeros without samples, or where a score is not finite.
    """
    scores, wanted = logits.double(), shares.double().clamp_min(_LEAST)
    shift = torch.zeros_like(wanted)
    if not len(scores) or not bool(scores.isfinite().all()):
        return shift.float()
    for _ in range(_ROUNDS):
        ratio = (wanted / (scores + shift).softmax(1).mean(0).clamp_min(_LEAST)).log()
        shift = shift + ratio
        if float(ratio.abs().max()) < _CLOSE:
            break
    return (shift - shift.mean()).clamp(-_MOST, _MOST).float()


def output_bias(classifier: Classifier) -> str | None:
    """Name of the bias that is added to the scores of the classes; ``None`` where the graph has no such tensor."""
    held, nodes = tensors(classifier.graph), list(classifier.graph.graph.nodes)
    for layer in weight_layers(classifier.graph):
        name = layer.bias if layer.last else None
        if name is None or held[name].shape != (classifier.num_classes,):
            continue
        readers = [user for node in nodes if node.op == "get_attr" and node.target == name for user in node.users]
        after = nodes[[node.name for node in nodes].index(layer.node) :]
        if len(readers) == 1 and sum("softmax" in str(node.target) for node in after) <= 1:
            return name
    return None


def shifted(kept: dict[str, Tensor], shift: dict[str, Tensor]) -> dict[str, Tensor]:
    """A snapshot with something added to some of its tensors."""
    return {name: tensor + shift[name].to(tensor) if name in shift else tensor for name, tensor in kept.items()}


@torch.no_grad()
def put_shift(classifier: Classifier, shift: dict[str, Tensor]) -> None:
    """Add a shift to a classifier's own tensors, in place."""
    held = tensors(classifier.graph)
    for name, change in shift.items():
        held[name].add_(change.to(held[name]))
