"""Quantiles of many columns over a stream, in memory that does not grow with it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SIZE = 128
"""Values a column holds at each level."""


def _sorted(values: Tensor) -> Tensor:
    """Each row sorted; on the CPU through numpy, whose vectorised sort is some 50 times as fast."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(1).values


def _ordered(values: Tensor) -> tuple[Tensor, Tensor]:
    """Each row sorted, and the places that its values came from."""
    if values.device.type == "cpu":
        order = torch.from_numpy(np.argsort(values.numpy(), axis=1))
        return values.gather(1, order), order
    values, order = values.sort(1)
    return values, order


class QuantileSketch:
    """Merge-and-halve summaries of every column at once (Manku, Rajagopalan, Lindsay 1998, deterministic halving).

    Level ``i`` holds ``size`` values, each standing for ``2**i`` samples; two of a level are merged, sorted, and every
    second value goes one level up. The rank error is at most ``log2(n / size) / (2 size)`` of ``n``: exact up to
    ``size`` samples, 4 % in the worst case at 100,000. Memory: at most ``log2(n / size) + 2 <= 40`` levels.

    Args:
        columns: Number of columns.
        size: Values a level, even.
    """

    def __init__(self, columns: int, size: int = SIZE) -> None:
        self.size, self.columns = size, columns
        self._buffer = torch.empty(columns, size)
        self._filled = 0
        self._levels: list[Tensor | None] = []
        self._odd = False
        self.count = 0

    def add(self, rows: Tensor) -> None:
        """Take samples ``(N, columns)``."""
        rows = rows.float()
        if self._buffer.device != rows.device:
            self._buffer = self._buffer.to(rows.device)
        self.count += len(rows)
        taken = 0
        while taken < len(rows):
            part = rows[taken : taken + self.size - self._filled]
            self._buffer[:, self._filled : self._filled + len(part)] = part.T
            self._filled += len(part)
            taken += len(part)
            if self._filled == self.size:
                self._carry(_sorted(self._buffer))
                self._filled = 0

    def _carry(self, values: Tensor) -> None:
        for level, held in enumerate(self._levels):
            if held is None:
                self._levels[level] = values
                return
            self._levels[level] = None
            # Taking odd and even places by turns cancels the half step that each halving is off.
            values = _sorted(torch.cat([held, values], 1))[:, int(self._odd) :: 2].contiguous()
            self._odd = not self._odd
        self._levels.append(values)

    def quantiles(self, probabilities: Tensor) -> Tensor:
        """Values at ``probabilities`` (each 0..1): ``(Q, columns)``; NaN when nothing was added."""
        parts, weights = [self._buffer[:, : self._filled]], [torch.ones(self._filled)]
        for level, held in enumerate(self._levels):
            if held is not None:
                parts.append(held)
                weights.append(torch.full((self.size,), 2.0**level))
        values, order = _ordered(torch.cat(parts, 1))
        if not values.shape[1]:
            return torch.full((len(probabilities), self.columns), torch.nan)
        weight = torch.cat(weights).double().to(values.device)[order]
        # The rank of a value is the middle of the samples that it stands for; quantiles lie between ranks linearly.
        ranks = weight.cumsum(1) - weight / 2
        wanted = (probabilities.double().to(values.device) * self.count).expand(self.columns, -1).contiguous()
        above = torch.searchsorted(ranks, wanted).clamp(1, max(values.shape[1] - 1, 1)).clamp_max(values.shape[1] - 1)
        below = (above - 1).clamp_min(0)
        low, high = ranks.gather(1, below), ranks.gather(1, above)
        share = ((wanted - low) / (high - low).clamp_min(1e-12)).clamp(0, 1).float()
        return torch.lerp(values.gather(1, below), values.gather(1, above), share).T.contiguous()
