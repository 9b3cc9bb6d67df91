"""Parts of a graph that do not depend on the input, such as a position index or an attention mask, worked out once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

from modelmend.errors import ModelRefused
from modelmend.model.meter import Meter, flat
from modelmend.model.operators import in_place

MAX_ELEMENTS = 1 << 26
"""Bound on the elements of all folded results together, and of what is made on the way."""
MAX_WORK = 1 << 32
"""Bound on the multiply-adds of all folding together."""


def folding() -> Meter:
    """The bounds of one graph's folding."""
    return Meter(MAX_ELEMENTS, MAX_ELEMENTS, MAX_WORK)


def fold(op: OpOverload, values: dict[str, Any], *, written: bool, meter: Meter, where: object) -> Any:
    """The result of an operator whose tensors are all known; what it costs is worked out without memory first.

    Args:
        op: An allowed operator.
        values: Arguments by schema name; tensors are real, nothing is symbolic.
        written: Use the operator's in-place form, so that views of the first argument see the change.
        meter: What folding has cost so far in this graph.
        where: The file, for errors.

    Raises:
        ModelRefused: The operator fails, or folding grows past its bounds.
    """
    try:
        shadow = {key: _to_meta(value) for key, value in values.items()}
        if not any(isinstance(v, Tensor) for v in flat(shadow.values())):
            shadow["device"] = torch.device("meta")
        with meter:
            result = op(**shadow)
        meter.add(op, *(t.numel() for t in flat([result]) if isinstance(t, Tensor)))
        run = (in_place(op) or op) if written else op
        return run(**values)
    except (RuntimeError, ValueError, IndexError, TypeError, NotImplementedError) as error:
        message = f"a constant of the graph cannot be worked out ({op}): {str(error)[:200]}"
        raise ModelRefused(message, where=where, field="graph") from error


def _to_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to("meta")
    return [_to_meta(v) for v in value] if isinstance(value, list) else value
