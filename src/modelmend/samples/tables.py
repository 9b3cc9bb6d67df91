"""Parquet, CSV and NumPy files: one row or entry a sample."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import Tensor

from modelmend.errors import SamplesError
from modelmend.samples.data import Samples, make_samples
from modelmend.samples.image import arrange, layout
from modelmend.samples.labels import GROUP_COLUMNS, need_column, to_groups, to_labels
from modelmend.samples.stack import ImageStack, Want

_ROWS_AT_A_TIME = 256
MAX_UNPACKED = 8 * 1024**3
"""Bytes of an ``.npz`` file's arrays; a few kilobytes of zeros can unpack to more than a machine holds."""
_UNREADABLE = (ValueError, OSError, BadZipFile, EOFError, MemoryError, NotImplementedError, RuntimeError, zlib.error)
"""What damaged, encrypted or foreign archives raise."""


@dataclass(frozen=True)
class Columns:
    """Names of the columns; ``group=None`` takes ``track`` or ``group`` when there is one."""

    image: str = "image"
    label: str = "label"
    group: str | None = None

    def group_in(self, available: Sequence[str], where: object) -> str | None:
        """The group column of a table, if any."""
        if self.group is not None:
            return need_column(self.group, available, where, "group_column")
        return next((name for name in GROUP_COLUMNS if name in available), None)


def read_parquet(files: Sequence[Path], columns: Columns, want: Want, source: str) -> Samples:
    """Images from parquet: encoded bytes (or ``{"bytes": ...}``), or arrays as nested lists, beside labels.

    Raises:
        SamplesError: names the row, the column and the fix.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        tables = [pq.ParquetFile(file) for file in files]
    except (pa.ArrowException, OSError) as error:
        raise SamplesError(
            f"not a parquet file: {error}", where=source, fix="write it with pandas or pyarrow"
        ) from error
    count = sum(table.metadata.num_rows for table in tables)
    names = list(tables[0].schema_arrow.names)
    need_column(columns.image, names, source, "image_column")
    need_column(columns.label, names, source, "label_column")
    group = columns.group_in(names, source)
    _not_empty(count, source)
    stack = ImageStack(count, want, source, columns.image)
    labels: list[Any] = []
    groups: list[Any] = []
    row = 0
    for table in tables:
        for batch in table.iter_batches(
            _ROWS_AT_A_TIME, columns=[columns.image, columns.label, *([group] if group else [])]
        ):
            for item in batch.column(columns.image):
                stack.add(row, item.as_py(), f"row {row}")
                row += 1
            labels += batch.column(columns.label).to_pylist()
            groups += batch.column(group).to_pylist() if group else []
    y = to_labels(labels, source, columns.label)
    return make_samples(stack.tensor(), y, source=source, groups=to_groups(groups, y) if group else None)


def read_rows(file: Path, columns: Columns, source: str, input_shape: tuple[int, ...] | None) -> Samples:
    """Raw samples from a CSV or parquet table: every numeric column but label and group is a feature.

    Raises:
        SamplesError: no features, text or missing values, or another number of features than ``input_shape`` holds.
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)
    except (ValueError, OSError) as error:
        raise SamplesError(
            f"not a readable table: {error}", where=source, fix="store CSV with a header line"
        ) from error
    names = [str(name) for name in frame.columns]
    need_column(columns.label, names, source, "label_column")
    group = columns.group_in(names, source)
    _not_empty(len(frame), source)
    features = [name for name in names if name not in {columns.label, group}]
    for name in features:
        numbers = pd.to_numeric(frame[name], errors="coerce").to_numpy(dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(numbers))
        if len(bad):
            raise SamplesError(
                f"the value in row {int(bad[0])} is {str(frame[name].iloc[int(bad[0])])[:40]!r}, not a finite number",
                where=source,
                field=f"column {name!r}, row {int(bad[0])}",
                fix="encode text as numbers; fill or remove missing values",
            )
    if not features:
        raise SamplesError("the table has no feature columns", where=source, fix="store one numeric column a feature")
    x = torch.tensor(frame[features].to_numpy(dtype=np.float32))
    y = to_labels(frame[columns.label].to_numpy(), source, columns.label)
    x = _shaped(x, input_shape, source, ", ".join(features[:6]))
    return make_samples(
        x, y, source=source, groups=to_groups(frame[group].to_numpy(), y) if group else None, kind="raw"
    )


def read_npz(file: Path, want: Want, source: str, kind: str) -> Samples:
    """Arrays ``x`` (N, ...) and ``y`` (N,), optionally ``groups`` (N,), from an ``.npz`` file without pickles.

    Raises:
        SamplesError: not such a file, one that unpacks to more than ``MAX_UNPACKED`` bytes, or arrays that do not fit.
    """
    try:
        with ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > MAX_UNPACKED:
            raise SamplesError(
                f"the arrays hold {unpacked / 1024**3:.1f} GiB, more than the {MAX_UNPACKED // 1024**3} GiB that are read",
                where=source,
                fix="give fewer samples; a thousand are plenty",
            )
        with np.load(file, allow_pickle=False) as stored:
            names = list(stored.files)
            x = stored[need_column("x", names, source, "the array name x")]
            y = to_labels(stored[need_column("y", names, source, "the array name y")], source, "y")
            groups = stored["groups"] if "groups" in names else None
    except _UNREADABLE as error:
        raise SamplesError(
            f"not a readable .npz file: {error}", where=source, fix="write it with numpy.savez(x=..., y=...)"
        ) from error
    if len(x) != len(y):
        raise SamplesError(f"x holds {len(x)} samples and y {len(y)}", where=source, fix="store one label a sample")
    _not_empty(len(y), source)
    tied = None if groups is None else to_groups(groups, y)
    if kind == "raw":
        return make_samples(_raw(x, want.shape, source), y, source=source, groups=tied, kind="raw")
    how = layout(x.shape[1:], want.shape)
    if how is None:
        raise SamplesError(
            f"x has shape {x.shape}", where=source, field="x", fix="store (N, H, W), (N, C, H, W) or (N, H, W, C)"
        )
    stack = ImageStack(len(y), want, source, "x")
    for row, pixels in enumerate(arrange(x, how)):
        stack.add(row, pixels, f"row {row}")
    return make_samples(stack.tensor(), y, source=source, groups=tied)


def _raw(x: Any, shape: tuple[int, ...] | None, source: str) -> Tensor:
    if x.dtype.kind not in "iufb":
        raise SamplesError(f"x holds {x.dtype}, not numbers", where=source, field="x", fix="store numbers")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0])
        raise SamplesError(
            f"NaN or infinite values in row {row}", where=source, field=f"x, row {row}", fix="repair or remove the row"
        )
    return _shaped(torch.from_numpy(x.astype(np.float32 if x.dtype.kind == "f" else np.int64)), shape, source, "x")


def _shaped(x: Tensor, shape: tuple[int, ...] | None, source: str, column: str) -> Tensor:
    if shape is None or tuple(x.shape[1:]) == tuple(shape):
        return x
    if x[0].numel() == int(np.prod(shape)):
        return x.reshape(len(x), *shape)
    raise SamplesError(
        f"row 0 holds values of shape {tuple(x.shape[1:])}; the model takes {tuple(shape)}",
        where=source,
        field=column,
        fix="store exactly the model's inputs, in its order",
    )


def _not_empty(count: int, source: str) -> None:
    if count == 0:
        raise SamplesError("there are no samples", where=source, fix="give a table with at least a few rows a class")
