"""What the names of a file's graph stand for; names of one value change together when it is written in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from torch import Tensor
from torch.fx import Node

Value = Node | Tensor
"""What a name in the file stands for: a node, or a tensor that is known without the input."""


class _Cell:
    def __init__(self, value: Value) -> None:
        self.value = value


class Names(Mapping[str, Value]):
    """Name to value. Names that share a value share a cell, so that a write costs the same however many there are."""

    def __init__(self) -> None:
        self._by_name: dict[str, _Cell] = {}
        self._by_value: dict[int, _Cell] = {}
        self._blocks: Counter[int] = Counter()

    def __getitem__(self, name: str) -> Value:
        return self._by_name[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def define(self, name: str, value: Value) -> None:
        """Let a new name stand for a value."""
        if id(value) not in self._by_value:
            self._by_value[id(value)] = _Cell(value)
            self._blocks[_block(value)] += 1
        self._by_name[name] = self._by_value[id(value)]

    def replace(self, old: Value, new: Value) -> None:
        """Let every name of one value stand for another, which had no name yet."""
        cell = self._by_value.pop(id(old), None)
        if cell is not None:
            self._blocks[_block(old)] -= 1
            cell.value = new
            self._by_value[id(new)] = cell

    def shares_memory(self, tensor: Tensor) -> bool:
        """Whether another named tensor lies in the memory of this one."""
        return _block(tensor) != 0 and self._blocks[_block(tensor)] > 1


def _block(value: Value) -> int:
    """Where a tensor's memory starts; 0 for nodes and tensors without any."""
    return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else 0
