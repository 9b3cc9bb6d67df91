"""Watching one node while a model runs: spatial mean and maximum of every sample and channel, and running moments."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from modelmend.errors import InputError
from modelmend.model.propagate import base_name
from modelmend.model.shapes import Spec


class Moments:
    """Mean and variance of columns over a stream, merged batch by batch (Chan, Golub, LeVeque 1979), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean, self.squares = torch.zeros(()), torch.zeros(())

    def add(self, rows: Tensor) -> None:
        """Take samples ``(N, ...)``."""
        n = len(rows)
        mean = rows.mean(0)
        mean, squares = mean.double(), (rows - mean).square_().sum(0).double()
        if not self.count:
            self.count, self.mean, self.squares = n, mean, squares
            return
        total = self.count + n
        apart = mean - self.mean
        self.mean = self.mean + apart * (n / total)
        self.squares = self.squares + squares + apart.square() * (self.count * n / total)
        self.count = total


class Tap:
    """Summaries of one node in each batch.

    Args:
        node: Whose value is watched.
        dim: Channel axis.
        spec: Shape record, with the batch axis.
        full: Gather moments of every element.
    """

    def __init__(self, node: Node, dim: int, spec: Spec, full: bool) -> None:
        self.node, self.dim, self.channels = node, dim, spec.shape[dim]
        self.merged, self.inner = spec.batch == -1, False
        axis = spec.merged if self.merged else spec.batch
        if axis is None or axis == dim:
            raise InputError("this value has no axis of samples", field=node.name, fix="collect another node")
        self.axis: int = axis
        self.mean = self.peak = torch.empty(0)
        self.full = Moments() if full else None

    def order(self, mixed: Tensor, same: Tensor, n: int) -> None:
        """Find how samples lie in a merged axis.

        Args:
            mixed: The value of ``n`` different samples.
            same: The value of ``n`` copies of the first: equal where elements belong to the first.
            n: Samples.
        """
        equal = mixed == same
        for inner in (False, True):
            self.inner = inner
            rows = self.grid(equal, n)
            if bool(rows[0].all()) and not bool(rows[1:].all()):
                return
        self.inner = False

    def grid(self, value: Tensor, n: int) -> Tensor:
        """The value as ``(n, channels, ...)``, a view."""
        sample, dim = self.axis, self.dim
        if self.merged:
            parts = (value.shape[sample] // n, n) if self.inner else (n, value.shape[sample] // n)
            value = value.reshape(*value.shape[:sample], *parts, *value.shape[sample + 1 :])
            dim += int(dim > sample)
            sample += int(self.inner)
        return value.movedim((sample, dim), (0, 1))

    def __call__(self, value: Tensor, n: int) -> None:
        """Summarise the value of ``n`` samples."""
        rows = self.grid(value, n)
        if rows.dim() == 2:
            self.mean = self.peak = rows
        elif rows.is_contiguous():
            flat = rows.flatten(2)
            self.mean, self.peak = flat.mean(2), flat.amax(2)
        else:
            self.mean, self.peak = _reduced(rows)
        if self.full is not None:
            self.full.add(rows)


def _reduced(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over all axes behind the second.

    One axis after the other, the widest stride first: reducing several strided axes at once is far slower.
    """
    mean = peak = rows
    left = sorted(range(2, rows.dim()), key=rows.stride, reverse=True)
    while left:
        axis = left.pop(0)
        mean, peak = mean.mean(axis), peak.amax(axis)
        left = [d - int(d > axis) for d in left]
    return mean, peak


_LAST = frozenset(("linear", "layer_norm", "native_layer_norm", "rms_norm", "embedding", "addmm", "mm"))
_FIRST = frozenset(("batch_norm", "group_norm", "instance_norm", "convolution", "scaled_dot_product_attention"))


def channel_axis(node: Node, rank: int) -> int:
    """The channel axis by the nearest operator with channels on the way back; axis 1 for images."""
    seen: Node | None = node
    while isinstance(seen, Node) and seen.op == "call_function":
        name = base_name(seen)
        if name in _LAST:
            return rank - 1
        if name in _FIRST or name.startswith("conv"):
            return 1
        if name in ("permute", "transpose", "view", "reshape", "flatten"):
            break
        seen = next(iter(seen.all_input_nodes), None)
    return rank - 1 if rank in (2, 3) else 1
