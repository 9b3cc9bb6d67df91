"""Reads a ``.safetensors`` file, a format that holds nothing but tensors."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from modelmend.errors import ModelRefused, ModelUnsupported
from modelmend.model.archive import MAX_BYTES


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Named tensors of the file.

    Raises:
        ModelRefused: The file is damaged or too large.
        ModelUnsupported: It holds no tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    if file.stat().st_size > MAX_BYTES:
        raise ModelRefused(f"the file is larger than {MAX_BYTES >> 30} GiB", where=file)
    try:
        tensors: dict[str, Tensor] = load(file.read_bytes())
    except (SafetensorError, ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise ModelRefused(f"the safetensors file is damaged: {str(error)[:160]}", where=file) from error
    if not tensors:
        raise ModelUnsupported("the file holds no tensors", where=file)
    return tensors
