"""Atoms and labels: which elements of which tensors are removed together.

Every element of every value carries the number of an *atom*. Producers (convolutions, linear layers, embeddings) make
new atoms, one an output channel; additions tie atoms; reshapes and permutations move labels exactly as they move data.
Atom 0 is fixed: whatever is tied to it can never be removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FIXED = 0


class Atoms:
    """A union-find over atoms; the smallest number of a set stands for it, so the fixed atom stands for its own."""

    def __init__(self) -> None:
        self._parent = torch.zeros(1024, dtype=torch.int64)
        self._count = 1

    def new(self, count: int) -> Tensor:
        """``count`` fresh atoms, ``(count,)`` int64."""
        while self._count + count > len(self._parent):
            grown = torch.arange(2 * len(self._parent))
            grown[: self._count] = self._parent[: self._count]
            self._parent = grown
        made = torch.arange(self._count, self._count + count)
        self._parent[self._count : self._count + count] = made
        self._count += count
        return made

    def find(self, labels: Tensor) -> Tensor:
        """The atom that stands for each label; same shape."""
        while True:
            up = self._parent[labels]
            if torch.equal(up, labels):
                return labels
            labels = up

    def tie(self, first: Tensor, second: Tensor) -> bool:
        """Tie labels element by element (shapes broadcast); True when anything changed."""
        a, b = (t.reshape(-1) for t in torch.broadcast_tensors(first, second))  # type: ignore[no-untyped-call]
        changed = False
        while True:
            a, b = self.find(a), self.find(b)
            apart = a != b
            if not bool(apart.any()):
                return changed
            changed = True
            a, b = a[apart], b[apart]
            low = torch.minimum(a, b)
            self._parent.scatter_reduce_(0, torch.cat([a, b]), torch.cat([low, low]), "amin")
            self._parent[: self._count] = self.find(self._parent[: self._count])

    def tie_along(self, labels: Tensor, dims: Sequence[int]) -> bool:
        """Tie everything that differs only in its position along ``dims``."""
        first = labels
        for dim in dims:
            first = first.narrow(dim, 0, 1)
        return self.tie(labels, first)

    def fix(self, labels: Tensor) -> bool:
        """Make labels fixed."""
        return self.tie(labels, torch.tensor(FIXED))


@dataclass(frozen=True)
class Value:
    """Labels of one tensor.

    Attributes:
        shape: Sizes at batch 2.
        labels: int64; as many axes as ``shape``, each of full size or, where labels do not vary, of size 1.
        zero: A removed element is 0 here once the slices of its group are set to zero.
    """

    shape: tuple[int, ...]
    labels: Tensor
    zero: bool = False

    @property
    def full(self) -> Tensor:
        """Labels in the full shape (a view)."""
        return self.labels.expand(self.shape)


def compress(labels: Tensor) -> Tensor:
    """Reduce every axis along which the labels do not vary to size 1."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1:
            first = labels.narrow(dim, 0, 1)
            if bool((labels == first).all()):
                labels = first
    return labels.clone() if labels.numel() else labels


def varying(labels: Tensor) -> list[int]:
    """Axes along which compressed labels vary."""
    return [d for d, size in enumerate(labels.shape) if size > 1]
