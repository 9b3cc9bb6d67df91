"""A tensor out of plain bytes, with its shape and strides checked against them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def tensor_from(
    raw: bytearray | memoryview, dtype: torch.dtype, sizes: Sequence[int], strides: Sequence[int], offset: int
) -> Tensor:
    """A tensor with memory of its own.

    Args:
        raw: Little-endian bytes of the storage.
        dtype: Element type.
        sizes: Shape.
        strides: In elements, as many as sizes, none negative.
        offset: Of the first element, in elements.

    Raises:
        ValueError: The numbers are not plain bounded integers, do not fit together, reach past the bytes, or show
            the same bytes more than once.
    """
    numbers = [*sizes, *strides, offset]
    if any(type(n) is not int or not 0 <= n < 1 << 40 for n in numbers):
        raise ValueError("a size is no bounded integer")
    if len(sizes) != len(strides) or len(sizes) > 8:
        raise ValueError("shape and strides disagree")
    numel = math.prod(sizes)
    if numel == 0:
        if math.prod(max(n, 1) for n in sizes) >= 1 << 60:
            raise ValueError("the shape is larger than any memory")
        return torch.empty(tuple(sizes), dtype=dtype)
    last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    if (last + 1) * dtype.itemsize > len(raw) or numel * dtype.itemsize > len(raw):
        raise ValueError("the tensor reaches past the end of its bytes, or repeats them")
    stored = torch.uint8 if dtype == torch.bool else dtype
    flat = torch.frombuffer(raw, dtype=stored, count=len(raw) // dtype.itemsize)
    view = torch.as_strided(flat, tuple(sizes), tuple(strides), offset)
    return view.ne(0) if dtype == torch.bool else view.clone()
