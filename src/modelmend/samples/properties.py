"""What validation looks at: one row of numbers a sample, never its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from modelmend.samples.data import Samples

if TYPE_CHECKING:
    from pandas import DataFrame

_BATCH = 1024


def table(samples: Samples) -> DataFrame:
    """Properties a sample.

    Columns: ``row``; ``content`` (id); ``label``; ``finite`` (share of finite values, 0..1); ``minimum``, ``maximum``;
    ``brightness`` (mean), ``contrast`` (standard deviation over all values); ``shape`` as text; ``copy_of`` (row of
    the first sample with equal content, -1 for a first one); ``contradicts`` (1 if equal content has another label).
    """
    import pandas as pd

    parts = [_figures(part.flatten(1).to(torch.float64).numpy()) for part in torch.split(samples.x, _BATCH)]
    finite, low, high, mean, std = (np.concatenate(column) for column in zip(*parts, strict=True))
    first: dict[str, int] = {}
    labels: dict[str, set[int]] = {}
    for row, (name, label) in enumerate(zip(samples.ids, samples.y.tolist(), strict=True)):
        first.setdefault(name, row)
        labels.setdefault(name, set()).add(label)
    return pd.DataFrame(
        {
            "row": np.arange(len(samples)),
            "content": list(samples.ids),
            "label": samples.y.numpy(),
            "finite": finite,
            "minimum": low,
            "maximum": high,
            "brightness": mean,
            "contrast": std,
            "shape": "x".join(map(str, samples.x.shape[1:])),
            "copy_of": [-1 if first[name] == row else first[name] for row, name in enumerate(samples.ids)],
            "contradicts": [int(len(labels[name]) > 1) for name in samples.ids],
        }
    )


def _figures(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    finite = np.isfinite(rows).mean(axis=1)
    with np.errstate(invalid="ignore"):
        return finite, rows.min(axis=1), rows.max(axis=1), rows.mean(axis=1), rows.std(axis=1)
