"""Attacks that read the model's output: its label, its loss, its modified entropy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modelmend.privacy.attacks.base import Access, View, label_loss


@dataclass(frozen=True)
class Gap:
    """Label only: members are more often right. Source: Yeom et al. 2018, arXiv 1709.01604."""

    name: str = "label-gap"
    access: Access = "label-only"

    def score(self, view: View) -> Tensor:
        """1 where the label is right."""
        return (view.logits.argmax(1) == view.y).double()


@dataclass(frozen=True)
class Loss:
    """Scores: members have a lower loss, which orders samples like their confidence. Source: as ``Gap``."""

    name: str = "loss"
    access: Access = "scores"

    def score(self, view: View) -> Tensor:
        """Minus the cross-entropy."""
        return -label_loss(view.logits, view.y)


@dataclass(frozen=True)
class ModifiedEntropy:
    """Scores: entropy that counts a confident error as uncertainty. Source: Song & Mittal 2021, arXiv 2003.10595.

    ``Mentr = -(1 - p_y) log p_y - sum_{i != y} p_i log(1 - p_i)``.
    """

    name: str = "modified-entropy"
    access: Access = "scores"

    def score(self, view: View) -> Tensor:
        """Minus the modified entropy."""
        p = view.logits.softmax(1)
        true = p.gather(1, view.y[:, None])[:, 0]
        log_true = view.logits.log_softmax(1).gather(1, view.y[:, None])[:, 0]
        others = p * torch.log1p(-p.clamp_max(1 - 1e-15))
        rest = others.sum(1) - others.gather(1, view.y[:, None])[:, 0]
        return (1 - true) * log_true + rest


@dataclass(frozen=True)
class Update:
    """Scores of both versions: how much the repair lowered the loss of a sample.

    The suspect serves as the attacker's reference model, which removes each sample's own difficulty: the strongest
    attack on the repair samples that needs no training, for whoever still has the old version (ours; cf. Jagielski
    et al. 2023, arXiv 2208.12348, on model updates).
    """

    name: str = "update"
    access: Access = "scores"

    def score(self, view: View) -> Tensor:
        """Loss before minus loss after; all 0 on the model before."""
        if view.earlier is None:
            return torch.zeros(len(view.y), dtype=torch.float64)
        return label_loss(view.earlier, view.y) - label_loss(view.logits, view.y)
