"""Parts of a graph that do not depend on the input, such as a position index or an attention mask, worked out once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from modelmend.errors import ModelRefused
from modelmend.model.operators import in_place

MAX_ELEMENTS = 1 << 26
"""Bound on the elements of all folded results together."""


def fold(op: OpOverload, values: dict[str, Any], *, written: bool, budget: int, where: object) -> tuple[Any, int]:
    """The result of an operator whose tensors are all known; its size is worked out without memory first.

    Args:
        op: An allowed operator.
        values: Arguments by schema name; tensors are real, nothing is symbolic.
        written: Use the operator's in-place form, so that views of the first argument see the change.
        budget: Elements folded so far in this graph.
        where: The file, for errors.

    Returns:
        ``(result, elements)``.

    Raises:
        ModelRefused: The operator fails, or the results grow past ``MAX_ELEMENTS``.
    """
    try:
        shadow = {key: _to_meta(value) for key, value in values.items()}
        if not any(isinstance(v, Tensor) for v in _flat(shadow.values())):
            shadow["device"] = torch.device("meta")
        grown = sum(t.numel() for t in _flat([op(**shadow)]) if isinstance(t, Tensor))
        if budget + grown > MAX_ELEMENTS:
            raise ModelRefused("constants of the graph grow too large", where=where, field="graph")
        run = (in_place(op) or op) if written else op
        return run(**values), grown
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        message = f"a constant of the graph cannot be worked out ({op}): {str(error)[:200]}"
        raise ModelRefused(message, where=where, field="graph") from error


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return [_to_meta(v) for v in value] if isinstance(value, list) else value
