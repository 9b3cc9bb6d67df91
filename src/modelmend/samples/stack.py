"""Images of mixed storage gathered, one by one, into a single ``(N, C, H, W)`` array in 0..1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelmend.errors import SamplesError
from modelmend.samples import image as images

Shape = tuple[int, ...]
_SLACK = 1e-4
_MAX_BYTES = 16 << 30


@dataclass(frozen=True)
class Want:
    """What the reader is asked for.

    Attributes:
        shape: ``(C, H, W)`` that the model takes; None takes the shape of the first image.
        resize: Bring images of another size to ``shape``; without it they are an error.
        value_range: ``(low, high)`` in which float images may be stored when they are not in 0..1; such images are
            scaled to 0..1.
    """

    shape: Shape | None = None
    resize: bool = False
    value_range: tuple[float, float] | None = None


class ImageStack:
    """Fills one array, allocated once, so that a data set is held in memory a single time.

    Args:
        count: Number of images to come.
        want: Shape and ranges.
        where: File or folder, named in errors.
        column: Column, named in errors.
    """

    def __init__(self, count: int, want: Want, where: object, column: str) -> None:
        self.want, self.where, self.column = want, where, column
        self.shape = want.shape
        self._count = count
        self._out: NDArray[np.float32] | None = None
        self._stored_floats = np.zeros(count, dtype=bool)

    def add(self, index: int, item: object, row: str) -> None:
        """Put one image at ``index``: encoded bytes, a file, ``{"bytes": ...}`` or an array of numbers."""
        if isinstance(item, dict) and isinstance(item.get("bytes"), bytes):
            item = item["bytes"]
        if isinstance(item, memoryview | bytearray):
            item = bytes(item)
        if item is None or (isinstance(item, float) and np.isnan(item)):
            raise self._error(f"the image in {row} is missing", row, "remove the row or store an image")
        if isinstance(item, bytes | Path):
            pixels = self._encoded(index, item, row)
        elif isinstance(item, list | tuple | np.ndarray):
            pixels = self._array(index, item, row)
        else:
            raise self._error(f"the image in {row} is a {type(item).__name__}", row, "store encoded bytes or an array")
        self._place(index, pixels, row)

    def tensor(self) -> Tensor:
        """All images ``(N, C, H, W)`` float32 in 0..1; checks the range of images stored as floats."""
        assert self._out is not None
        rows = np.flatnonzero(self._stored_floats)
        if len(rows):
            self._to_unit(rows)
        return torch.from_numpy(self._out)

    def _encoded(self, index: int, item: bytes | Path, row: str) -> images.Pixels:
        opened = images.open_image(item, self.where, row)
        self._stored_floats[index] = opened.mode in {"F", "I"}
        channels = self.shape[0] if self.shape else (1 if images.is_grey(opened) else 3)
        return images.decode(opened, channels, self.where, row)

    def _array(self, index: int, item: Any, row: str) -> images.Pixels:
        try:
            array = np.asarray(item.tolist() if isinstance(item, np.ndarray) and item.dtype == object else item)
            array = array if array.dtype != object else np.asarray(array.tolist(), dtype=np.float64)
        except (ValueError, TypeError) as error:
            raise self._error(f"the image in {row} is a ragged list", row, "store rows of equal length") from error
        how = images.layout(array.shape, self.shape)
        if how is None and array.ndim == 1 and self.shape and array.size == int(np.prod(self.shape)):
            array, how = array.reshape(self.shape), "CHW"
        if how is None:
            raise self._error(
                f"the image in {row} has shape {array.shape}",
                row,
                "store (H, W), (C, H, W) or (H, W, C), or encoded images",
            )
        pixels, as_float = to_floats(images.arrange(array, how), self.where, self.column, row)
        self._stored_floats[index] = as_float
        return pixels

    def _place(self, index: int, pixels: images.Pixels, row: str) -> None:
        shape = self.shape or pixels.shape
        if pixels.shape[0] == 1 and shape[0] == 3:
            pixels = np.repeat(pixels, 3, axis=0)
        if pixels.shape != shape and self.want.resize and pixels.shape[0] == shape[0]:
            pixels = images.resize(pixels, shape[1], shape[2])
        if pixels.shape != shape:
            source = "the model takes" if self.want.shape else "the first image has"
            raise self._error(
                f"the image in {row} has shape {pixels.shape}; {source} {tuple(shape)} (channels, height, width)",
                row,
                "store images of the model's input size, or ask for resizing" if pixels.shape[0] == shape[0]
                else "store images of that shape; only another height and width can be resized",
            )  # fmt: skip
        if self._out is None:
            self._out = self._allocate(shape)
        self.shape = shape
        self._out[index] = pixels

    def _allocate(self, shape: Shape) -> NDArray[np.float32]:
        size = self._count * int(np.prod(shape)) * 4
        if size > _MAX_BYTES:
            raise self._error(
                f"{self._count} images of {tuple(shape)} need {size / 2**30:.0f} GiB of memory",
                "",
                "give fewer samples: a few hundred a class are plenty",
            )
        return np.empty((self._count, *shape), dtype=np.float32)

    def _to_unit(self, rows: NDArray[np.int64]) -> None:
        assert self._out is not None
        low = np.array([self._out[i].min() for i in rows])
        high = np.array([self._out[i].max() for i in rows])
        if low.min() >= -_SLACK and high.max() <= 1 + _SLACK:
            base, span = 0.0, 1.0
        elif self.want.value_range and low.min() >= self.want.value_range[0] - _SLACK * span_of(self.want) and (
            high.max() <= self.want.value_range[1] + _SLACK * span_of(self.want)
        ):  # fmt: skip
            base, span = self.want.value_range[0], span_of(self.want)
        else:
            first = int(rows[np.flatnonzero((low < -_SLACK) | (high > 1 + _SLACK))[0]])
            raise self._error(
                f"float images must lie in 0..1, but reach from {low.min():g} to {high.max():g} (first in row {first})",
                f"row {first}",
                "store uint8 or divide by the largest value; if they are stored in the range of the model's input, "
                "name it with --input-range LOW,HIGH; undo any mean/std normalisation",
            )
        for i in rows:
            np.clip((self._out[i] - base) / span, 0, 1, out=self._out[i])

    def _error(self, message: str, row: str, fix: str) -> SamplesError:
        return SamplesError(message, where=self.where, field=f"column {self.column!r}, {row}".rstrip(", "), fix=fix)


def span_of(want: Want) -> float:
    """Width of the stored value range, 1 when none is named."""
    return 1.0 if want.value_range is None else want.value_range[1] - want.value_range[0]


def to_floats(array: NDArray[Any], where: object, column: str, row: str) -> tuple[NDArray[np.float32], bool]:
    """Numbers to float32: 8-bit and other integers over 255, uint16 over 65535; floats as they are.

    Returns:
        The floats, and whether they were stored as floats (so that their range must be checked).

    Raises:
        SamplesError: NaN or infinite pixels, integers outside 0..255, or no numbers at all.
    """
    at = f"column {column!r}, {row}"
    if array.dtype == np.bool_:
        return array.astype(np.float32), False
    if array.dtype == np.uint16:
        return array.astype(np.float32) / np.float32(65535), False
    if array.dtype.kind in "iu":
        if array.size and (array.min() < 0 or array.max() > 255):
            raise SamplesError(
                f"integer pixels must lie in 0..255, but {row} reaches from {array.min()} to {array.max()}",
                where=where,
                field=at,
                fix="store uint8, uint16 or floats in 0..1",
            )
        return array.astype(np.float32) / np.float32(255), False
    if array.dtype.kind != "f":
        raise SamplesError(f"{row} holds {array.dtype}, not numbers", where=where, field=at, fix="store numbers")
    bad = ~np.isfinite(array)
    if bad.any():
        raise SamplesError(
            f"{int(bad.sum())} pixels in {row} are NaN or infinite",
            where=where,
            field=at,
            fix="repair or remove the row",
        )
    return array.astype(np.float32), True
