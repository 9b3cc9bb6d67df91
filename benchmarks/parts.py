"""The defender's clean samples, divided as the product divides them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from modelmend.samples.data import Samples
from modelmend.samples.split import split

Pair = tuple[Tensor, Tensor]


class NotApplicableError(Exception):
    """A method cannot work on this model, such as one that needs batch norm; the table says so."""


@dataclass(frozen=True)
class Parts:
    """Disjoint parts of the clean budget.

    Attributes:
        budget: All of it.
        fit: 20 %, fits triggers and edits.
        reward: 20 %, gives the search its reward.
        select: 20 %, chooses among finished candidates.
        gate: 40 %, read by the verdict only.
    """

    budget: Samples
    fit: Samples
    reward: Samples
    select: Samples
    gate: Samples

    @property
    def repair(self) -> tuple[Tensor, Tensor]:
        """``fit`` and ``reward`` together: what a method without a search trains on."""
        return torch.cat([self.fit.x, self.reward.x]), torch.cat([self.fit.y, self.reward.y])

    @property
    def pairs(self) -> tuple[Pair, Pair, Pair]:
        """Samples and labels of ``fit``, ``reward`` and ``select``: what a repair may read."""
        return (self.fit.x, self.fit.y), (self.reward.x, self.reward.y), (self.select.x, self.select.y)


def divide(budget: Samples, seed: int) -> Parts:
    """Divide a budget by ``samples.split``."""
    positions = split(budget, seed)
    return Parts(budget, *(budget.subset(getattr(positions, name)) for name in ("fit", "reward", "select", "gate")))


def batches(x: Tensor, y: Tensor, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order; a last batch of one sample is left out (batch norm needs two)."""
    for index in torch.split(torch.randperm(len(x), generator=generator), size):
        if len(index) > 1:
            yield x[index], y[index]
