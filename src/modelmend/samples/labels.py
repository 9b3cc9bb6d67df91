"""Labels and groups as they come, to class and group numbers; and columns found by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelmend.errors import SamplesError

GROUP_COLUMNS = ("track", "group")
"""Columns taken as groups when none is named."""


def to_labels(values: Any, where: object, column: str) -> Tensor:
    """Class numbers ``(N,)`` int64 from a column of integers (or floats without a fraction).

    Raises:
        SamplesError: text, fractions, missing or negative values; names the first row.
    """
    array = np.asarray(values)
    if array.dtype == object:
        array = _numbers(array, where, column)
    if array.dtype == np.bool_:
        array = array.astype(np.int64)
    if array.ndim != 1:
        raise SamplesError(
            f"labels have shape {array.shape}, not one number a sample",
            where=where,
            field=f"column {column!r}",
            fix="store one class number a row (argmax of one-hot rows)",
        )
    if array.dtype.kind not in "iuf":
        raise _bad(f"labels are text ({str(array[0])!r} in row 0), not class numbers", where, column, _MAP)
    at = (where, column)
    if array.dtype.kind == "f":
        _refuse(~np.isfinite(array), array, "is missing", at, "remove the row or label it")
        _refuse(array != np.round(array), array, "is not an integer", at, _MAP)
    _refuse(array < 0, array, "is negative", at, "remove unlabelled rows; classes count from 0")
    return torch.from_numpy(array.astype(np.int64))


def to_groups(values: Any, labels: Tensor) -> Tensor:
    """Group numbers ``(N,)`` int64; values are distinguished within a class, as tracks are numbered a class."""
    seen: dict[tuple[int, str], int] = {}
    keys = zip(labels.tolist(), map(str, np.asarray(values).tolist()), strict=True)
    return torch.tensor([seen.setdefault(key, len(seen)) for key in keys], dtype=torch.long)


def need_column(name: str, available: Sequence[str], where: object, option: str) -> str:
    """``name`` if it is there, else an error that lists the columns and names the nearest."""
    if name in available:
        return name
    near = difflib.get_close_matches(name, available, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise SamplesError(
        f"no column {name!r}; there are: {', '.join(available) or 'none'}",
        where=where,
        field=f"column {name!r}",
        fix=f"{hint}rename it or name it with {option}",
    )


_MAP = "store class numbers in the order of the model's outputs"


def _numbers(array: NDArray[Any], where: object, column: str) -> NDArray[Any]:
    for row, value in enumerate(array):
        if value is None:
            raise _bad(f"the label in row {row} is missing", where, column, "remove the row or label it", row)
        if not isinstance(value, int | float | np.integer | np.floating):
            raise _bad(f"the label in row {row} is {str(value)[:40]!r}, not a class number", where, column, _MAP, row)
    return np.asarray(array.tolist())


def _refuse(bad: NDArray[np.bool_], array: NDArray[Any], what: str, at: tuple[object, str], fix: str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        row = int(rows[0])
        more = f" ({len(rows)} rows in all)" if len(rows) > 1 else ""
        raise _bad(f"the label in row {row} {what}: {array[row]}{more}", *at, fix, row)


def _bad(message: str, where: object, column: str, fix: str, row: int | None = None) -> SamplesError:
    field = f"column {column!r}" + ("" if row is None else f", row {row}")
    return SamplesError(message, where=where, field=field, fix=fix)
