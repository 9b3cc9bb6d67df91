"""Counts what operators allocate and multiply, inside composite operators too, while they run on shapes only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from modelmend.errors import ModelRefused

MAX_CALLS = 500_000
"""Largest number of primitive operators, such as the steps of a recurrent network."""


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses what is too large before it exists; use as a context around calls on the ``meta`` device.

    Args:
        one: Largest number of elements of one tensor.
        together: Of all tensors that are made.
        work: Multiply-adds, comparisons and elements read, all operators together.

    Attributes:
        values: Elements made so far.
        done: Work so far.
    """

    def __init__(self, one: int, together: int, work: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.one, self.together, self.work = one, together, work
        self.values = self.done = self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        if all(r.alias_info is None for r in func._schema.returns):  # views cost nothing
            self.add(func, *(t.numel() for t in flat([result]) if isinstance(t, Tensor)))
            self.done += _work(func, args, result)
        if self.done > self.work or self.calls > MAX_CALLS:
            raise ModelRefused(f"the model would need far too much computation ({func})", field="graph")
        return result

    def add(self, name: object, *sizes: int) -> None:
        """Count tensors of these sizes; ``name`` is what made them."""
        self.values += sum(sizes)
        if max(sizes, default=0) > self.one or self.values > self.together:
            raise ModelRefused(
                f"the model would need too much memory for one sample ({name}: {max(sizes)} values)", field="graph"
            )


def flat(values: Any) -> Iterator[Any]:
    """Everything in nested lists and tuples."""
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from flat(value)
        else:
            yield value


def _work(func: Any, args: tuple[Any, ...], result: Any) -> int:
    made = sum(t.numel() for t in flat([result]) if isinstance(t, Tensor))
    count = _PRODUCTS.get(str(func).split(".")[1])
    if count is not None:
        return count(args, made)
    return max([made, *(t.numel() for t in flat(args) if isinstance(t, Tensor))])


def _convolution(args: tuple[Any, ...], made: int) -> int:
    moved: Tensor = args[0]
    weight: Tensor = args[1]
    return (moved.numel() if args[6] else made) * math.prod(weight.shape[1:])


def _window(args: tuple[Any, ...], made: int) -> int:
    sizes: list[int] = args[1]
    return made * math.prod(sizes)


_PRODUCTS: dict[str, Callable[[tuple[Any, ...], int], int]] = {
    "mm": lambda args, made: made * int(args[0].shape[-1]),
    "bmm": lambda args, made: made * int(args[0].shape[-1]),
    "addmm": lambda args, made: made * int(args[1].shape[-1]),
    "baddbmm": lambda args, made: made * int(args[1].shape[-1]),
    "convolution": _convolution,
    "max_pool2d_with_indices": _window,
    "max_pool3d_with_indices": _window,
    "avg_pool2d": _window,
    "avg_pool3d": _window,
    "_scaled_dot_product_flash_attention_for_cpu": lambda args, made: 2 * args[0].numel() * int(args[1].shape[-2]),
}
"""Work of the operators whose work is not in proportion to their size."""
