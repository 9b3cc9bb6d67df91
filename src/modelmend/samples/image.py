"""One stored image, whatever its mode, to the ``(C, H, W)`` floats in 0..1 that a model of C channels wants."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modelmend.errors import SamplesError

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
"""What is decoded. Others (EPS runs Ghostscript) are not images of a data set."""

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

Pixels = NDArray[np.float32]


def open_image(data: bytes | Path, where: object, row: str) -> Image:
    """Open an encoded image without decoding its pixels.

    Args:
        data: Encoded bytes or a file.
        where: Named in the error.
        row: Which sample, such as ``row 3``.

    Raises:
        SamplesError: not an image of a known format, or unreasonably large.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise _unreadable(error, where, row) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise SamplesError(
            f"the image is too large: {error}", where=where, field=row, fix="shrink or remove it"
        ) from error


def is_grey(image: Image) -> bool:
    """Whether the stored image has a single colour channel."""
    return image.mode in {"1", "L", "LA", "I", "F"} or image.mode.startswith("I;16")


def decode(image: Image, channels: int, where: object, row: str) -> Pixels:
    """Pixels ``(channels, H, W)`` in 0..1.

    16-bit grey is divided by 65535; palettes and CMYK become RGB; an alpha channel is dropped, as
    ``Image.convert("RGB")`` in common training code does; colour becomes luminance when ``channels`` is 1.

    Raises:
        SamplesError: the image is truncated or damaged, or ``channels`` is neither 1, 3 nor 4.
    """
    try:
        if image.mode in {"F", "I"} or image.mode.startswith("I;16"):
            raw = np.asarray(image, dtype=np.float32)
            if not np.isfinite(raw).all():
                raise ValueError("NaN or infinite pixels")
            grey = raw if image.mode == "F" else raw / np.float32(65535)
            return _repeat(grey[None], channels, where, row)
        mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
        if mode is None:
            raise SamplesError(
                f"encoded images cannot give the {channels} channels that the model takes",
                where=where,
                field=row,
                fix="store arrays (C, H, W) in the image column or in an .npz file",
            )
        flat = np.asarray(image if image.mode == mode else image.convert(mode), dtype=np.float32) / np.float32(255)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise _unreadable(error, where, row) from error
    return flat[None] if channels == 1 else np.ascontiguousarray(flat.transpose(2, 0, 1))


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Bilinear, anti-aliased resize of ``(C, H, W)`` to ``(C, height, width)``."""
    import torch
    from torch.nn.functional import interpolate

    at = torch.from_numpy(pixels)[None]
    out = interpolate(at, (height, width), mode="bilinear", antialias=True, align_corners=False)
    scaled: Pixels = out[0].clamp(0, 1).numpy()
    return scaled


def layout(shape: tuple[int, ...], wanted: tuple[int, ...] | None) -> str | None:
    """How one array of ``shape`` holds an image: ``"HW"``, ``"CHW"``, ``"HWC"``, or None when it cannot be one."""
    if len(shape) != 3:
        return "HW" if len(shape) == 2 else None
    usual = {1, 3, 4} if wanted is None else {1, 3, 4, wanted[0]}
    first, last = shape[0] in usual, shape[2] in usual
    if first and last and wanted is not None and shape != wanted:
        first = (shape[2], shape[0], shape[1]) != wanted
    if first:
        return "CHW"
    return "HWC" if last else None


def arrange(array: NDArray[Any], how: str) -> NDArray[Any]:
    """Bring an image (or a batch with one more leading axis) of layout ``how`` to ``(C, H, W)``."""
    if how == "HW":
        return np.expand_dims(array, -3)
    return np.moveaxis(array, -1, -3) if how == "HWC" else array


def _repeat(grey: Pixels, channels: int, where: object, row: str) -> Pixels:
    if channels not in {1, 3}:
        raise SamplesError(
            f"a grey image cannot give {channels} channels", where=where, field=row, fix="store colour images"
        )
    return np.repeat(grey, channels, axis=0)


def _unreadable(error: Exception, where: object, row: str) -> SamplesError:
    reason = "not a PNG, JPEG, BMP, GIF, TIFF, WEBP or PPM image" if "cannot identify" in str(error) else str(error)
    return SamplesError(f"unreadable image in {row}: {reason}", where=where, field=row, fix="repair or remove it")
