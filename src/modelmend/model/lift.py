"""Named tensors out of a pickle that was read as data: from a state dict, a checkpoint or a whole pickled module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from modelmend.errors import ModelRefused, ModelUnsupported
from modelmend.model.arguments import DTYPES
from modelmend.model.pickles import Global, Stub
from modelmend.model.rawtensor import tensor_from
from modelmend.model.torchfile import Storage, TorchFile, nested_stream

MAX_TENSORS = 50_000
MAX_DEPTH = 48
MAX_MODULES = 50_000
WEIGHT_KEYS = ("state_dict", "model_state_dict", "model", "net", "module", "network", "weights", "ema_state_dict")
"""Where training scripts put the weights inside a checkpoint dictionary, in this order."""

_BY_NAME = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES.values()}


class Lifter:
    """Turns stubs of ``torch._utils._rebuild_*`` into tensors; everything else stays inert.

    Args:
        file: What was read.
        where: Its path, for errors.
        budget: Bytes of tensors allowed together.
    """

    def __init__(self, file: TorchFile, where: object, budget: int) -> None:
        self._file, self._where, self._budget = file, where, budget
        self._made: dict[int, Tensor] = {}
        self._nested: dict[int, Any] = {}
        self._modules = 0

    def state_dict(self) -> tuple[dict[str, Tensor], str]:
        """The named tensors and where in the file they are (empty for the top).

        Raises:
            ModelUnsupported: There are no named tensors.
            ModelRefused: A tensor's description is damaged.
        """
        for place, value in self._candidates(self._file.value):
            found = dict(self._named(value, "", 0, frozenset()))
            if found:
                return found, place
        raise ModelUnsupported(
            "the file holds no named tensors", where=self._where, fix="save model.state_dict() with torch.save"
        )

    def _candidates(self, value: Any) -> Iterator[tuple[str, Any]]:
        items = _as_dict(value)
        if items is not None and not any(self._is_tensor(v) for v in items.values()):
            yield from ((key, items[key]) for key in WEIGHT_KEYS if key in items)
        yield "", value

    def _named(self, value: Any, prefix: str, depth: int, above: frozenset[int]) -> Iterator[tuple[str, Tensor]]:
        """Dotted names, as ``nn.Module.state_dict`` would give them."""
        self._modules += 1  # a module that two others share is walked twice, so depth alone is no bound
        if depth > MAX_DEPTH or id(value) in above or self._modules > MAX_MODULES:
            raise ModelRefused("modules are nested too deeply", where=self._where, field=prefix[:200])
        below = above | {id(value)}
        state = _module_state(value)
        if state is not None:
            temporary = _elements(state.get("_non_persistent_buffers_set"))
            for group in ("_parameters", "_buffers"):
                for name, item in (_as_dict(state.get(group)) or {}).items():
                    if self._is_tensor(item) and not (group == "_buffers" and name in temporary):
                        yield self._one(f"{prefix}{name}", item)
            for name, item in (_as_dict(state.get("_modules")) or {}).items():
                if item is not None:
                    yield from self._named(item, f"{prefix}{name}.", depth + 1, below)
            return
        for name, item in (_as_dict(value) or {}).items():
            if isinstance(name, str) and self._is_tensor(item):
                yield self._one(f"{prefix}{name}", item)

    def _one(self, name: str, value: Any) -> tuple[str, Tensor]:
        try:
            tensor = self._tensor(value, 0)
        except (ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            raise ModelRefused(
                f"a tensor's description is damaged: {str(error)[:120]}", where=self._where, field=name[:200]
            ) from error
        if self._budget < 0 or len(self._made) > MAX_TENSORS:
            raise ModelRefused("the tensors are far larger than the file", where=self._where, field=name[:200])
        return name[:1000], tensor

    def _is_tensor(self, value: Any) -> bool:
        return isinstance(value, Tensor) or (
            isinstance(value, Stub) and isinstance(value.made_by, Global) and str(value.made_by) in REBUILDERS
        )

    def _tensor(self, value: Any, depth: int) -> Tensor:
        if isinstance(value, Tensor):
            return value
        if not self._is_tensor(value) or depth > 4:
            raise ValueError("no tensor")
        if id(value) in self._made:
            return self._made[id(value)]
        maker, args = str(value.made_by), value.args
        if maker == "torch._tensor._rebuild_from_type_v2":
            tensor = self._tensor(Stub(args[0], args[2]), depth + 1)
        elif maker.startswith("torch._utils._rebuild_parameter") or maker == "torch.nn.parameter.Parameter":
            tensor = self._tensor(args[0], depth + 1)
        else:
            storage = args[0]
            if isinstance(storage, Stub) and str(storage.made_by) == "torch.storage._load_from_bytes":
                storage = self._inner(storage)
            if not isinstance(storage, Storage):
                raise ValueError("a tensor without a storage")
            dtype = _dtype(args[6]) if maker.endswith("_v3") else storage.dtype
            if dtype is None:
                raise ValueError("an element type that is not known")
            tensor = tensor_from(storage.read(), dtype, args[2], args[3], args[1])
            self._budget -= tensor.numel() * dtype.itemsize
        self._made[id(value)] = tensor
        return tensor

    def _inner(self, stub: Stub) -> Any:
        """What nested bytes hold; parsed once, however many tensors point at them."""
        content = stub.args[0]
        if id(content) not in self._nested:
            self._nested[id(content)] = nested_stream(content, self._where)
        return self._nested[id(content)]


REBUILDERS = frozenset(
    {
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch._tensor._rebuild_from_type_v2",
        "torch.nn.parameter.Parameter",
    }
)
"""What torch calls to make a tensor from a storage; done here by hand."""


def _dtype(value: Any) -> torch.dtype | None:
    return _BY_NAME.get(value.name) if isinstance(value, Global) and value.module == "torch" else None


def _as_dict(value: Any) -> dict[Any, Any] | None:
    """A dictionary, or the items of a stub of one."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Stub) and value.items:
        return {key: item for key, item in value.items if isinstance(key, str)}
    return None


def _module_state(value: Any) -> dict[Any, Any] | None:
    """Attributes of a pickled ``nn.Module``, recognised by what it must have."""
    if not isinstance(value, Stub):
        return None
    state = value.state[0] if isinstance(value.state, tuple) and value.state else value.state
    return state if isinstance(state, dict) and "_parameters" in state and "_modules" in state else None


def _elements(value: Any) -> list[Any]:
    if not isinstance(value, Stub):
        return []
    from_call = value.args[0] if isinstance(value.args, tuple) and value.args else []
    return [*value.elements, *(from_call if isinstance(from_call, list) else [])]
