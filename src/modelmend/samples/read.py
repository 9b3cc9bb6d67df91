"""Samples from any place and form: one call."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from modelmend import storage
from modelmend.errors import InputError, SamplesError
from modelmend.samples.data import Samples
from modelmend.samples.folder import read_folder
from modelmend.samples.stack import Want
from modelmend.samples.tables import Columns, read_npz, read_parquet, read_rows


def read_samples(
    uri: str | Path,
    *,
    kind: Literal["image", "raw"] = "image",
    input_shape: tuple[int, ...] | None = None,
    resize: bool = False,
    input_range: tuple[float, float] | None = None,
    columns: Columns | None = None,
    workdir: Path | None = None,
) -> Samples:
    """Read clean labelled samples.

    Args:
        uri: A ``.parquet``, ``.npz`` or (raw only) ``.csv`` file, a folder of parquet files, or a folder with one
            sub-folder of images a class; local, ``file://`` or ``s3://``.
        kind: ``"image"`` gives float32 in 0..1; ``"raw"`` gives tables and signals as they are.
        input_shape: ``(C, H, W)`` that the model takes, without batch; None takes the first sample's shape.
        resize: Bring images of another size to ``input_shape``; without it another size is an error.
        input_range: ``(low, high)`` of the model's input: images stored as floats outside 0..1 but inside this range
            are scaled to 0..1.
        columns: Names of the image, label and group columns.
        workdir: Where remote files are fetched to; a temporary folder when None.

    Returns:
        Samples in stored order. A ``track`` or ``group`` column becomes groups.

    Raises:
        SamplesError: unreadable, empty or unfit; names the row, the column and the fix.
        StorageError: the URI cannot be fetched.
    """
    if kind not in {"image", "raw"}:
        raise InputError(f"unknown kind of samples: {kind!r}", field="kind", fix="use 'image' or 'raw'")
    if kind == "image" and input_shape is not None and len(input_shape) != 3:
        raise InputError(
            f"the model takes {tuple(input_shape)}, which is no image (channels, height, width)",
            field="kind",
            fix="read the samples with kind='raw'",
        )
    source = str(uri)
    want = Want(None if input_shape is None else tuple(input_shape), resize, input_range)
    with tempfile.TemporaryDirectory(prefix="modelmend-samples-") as scratch:
        try:
            path = storage.fetch(source, workdir or Path(scratch))
        except storage.NotFoundError as error:
            raise SamplesError(error.message, where=error.where, fix=error.fix) from error
        return _read(path, source, kind, want, columns or Columns())


def _read(path: Path, source: str, kind: str, want: Want, columns: Columns) -> Samples:
    if path.is_dir():
        parts = sorted(path.glob("*.parquet"))
        if parts and kind == "image":
            return read_parquet(parts, columns, want, source)
        if kind == "image":
            return read_folder(path, want, source)
    elif path.suffix == ".npz":
        return read_npz(path, want, source, kind)
    elif path.suffix == ".parquet" and kind == "image":
        return read_parquet([path], columns, want, source)
    elif path.suffix in {".parquet", ".csv"} and kind == "raw":
        return read_rows(path, columns, source, want.shape)
    what = "a folder" if path.is_dir() else f"{path.suffix or 'a file without an ending'}"
    forms = ".parquet, .npz or a folder of class folders" if kind == "image" else ".parquet, .npz or .csv"
    raise SamplesError(f"cannot read {kind} samples from {what}", where=source, fix=f"give {forms}")
