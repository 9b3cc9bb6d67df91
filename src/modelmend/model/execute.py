"""Running a graph node by node: from any point, with changes to arguments or results on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

Before = Callable[[list[Any]], list[Any]]
"""Changes the positional arguments of a node."""
After = Callable[[Any], Any]
"""Changes the result of a node."""


class _Slot(int):
    """Position of a node whose value stands for an argument."""


def _template(argument: Any, position: Mapping[Node, int]) -> Any:
    return map_aggregate(argument, lambda a: _Slot(position[a]) if isinstance(a, Node) else a)


def _fill(argument: Any, values: list[Any]) -> Any:
    if type(argument) is _Slot:
        return values[argument]
    if isinstance(argument, list | tuple):
        return [_fill(a, values) for a in argument]
    return argument


def _has_slot(argument: Any) -> bool:
    return type(argument) is _Slot or (isinstance(argument, list | tuple) and any(map(_has_slot, argument)))


class Program:
    """A graph as a list of steps; about 2 microseconds a node over the operators themselves.

    Parameters are looked up at every run, so edits of the graph's weights are seen.

    Args:
        graph: The model form.
    """

    def __init__(self, graph: GraphModule) -> None:
        self.nodes: list[Node] = list(graph.graph.nodes)
        self.position = {node: index for index, node in enumerate(self.nodes)}
        self.by_name = {node.name: index for index, node in enumerate(self.nodes)}
        self.stop = self.position[next(n for n in self.nodes if n.op == "output")]
        self._owners: dict[int, tuple[nn.Module, str]] = {}
        self._args: list[Any] = []
        self._plain: list[bool] = []
        self._kwargs: list[dict[str, Any]] = []
        self.last_use = list(range(len(self.nodes)))
        for index, node in enumerate(self.nodes):
            self._args.append(tuple(_template(a, self.position) for a in node.args))
            self._plain.append(not any(isinstance(a, list | tuple) and _has_slot(a) for a in self._args[-1]))
            self._kwargs.append({k: _template(a, self.position) for k, a in node.kwargs.items()})
            for source in node.all_input_nodes:
                self.last_use[self.position[source]] = index
            if node.op == "get_attr":
                *path, leaf = str(node.target).split(".")
                self._owners[index] = (graph.get_submodule(".".join(path)), leaf)
        self._dying: list[list[int]] = [[] for _ in self.nodes]
        for index, last in enumerate(self.last_use):
            self._dying[last].append(index)

    def live(self, cut: int) -> list[int]:
        """Positions before ``cut`` whose values are needed at or after it (parameters are not listed)."""
        return [i for i in range(cut) if self.last_use[i] >= cut and i not in self._owners]

    def _call(self, index: int, node: Node, held: list[Any], change: Before | None) -> Any:
        if self._plain[index]:
            args = [held[a] if type(a) is _Slot else a for a in self._args[index]]
        else:
            args = [_fill(a, held) for a in self._args[index]]
        if change is not None:
            args = change(args)
        return node.target(*args, **{k: _fill(a, held) for k, a in self._kwargs[index].items()})  # type: ignore[operator]

    def run(
        self,
        x: Tensor | None,
        *,
        start: int = 0,
        stop: int | None = None,
        values: Mapping[int, Any] | None = None,
        before: Mapping[int, Before] | None = None,
        after: Mapping[int, After] | None = None,
    ) -> Any:
        """Evaluate steps ``start`` to ``stop``.

        Args:
            x: The input; None when resuming behind it.
            start: First position to evaluate.
            stop: First position not to evaluate; by default the output.
            values: Of earlier positions, when ``start`` is not 0.
            before: Position -> change of its arguments.
            after: Position -> change of its result.

        Returns:
            The output, or with ``stop`` the values that are live there, by position.
        """
        before, after = before or {}, after or {}
        held: list[Any] = [None] * len(self.nodes)
        for index, value in (values or {}).items():
            held[index] = value
        for index, (owner, leaf) in self._owners.items():
            if index < start:
                held[index] = getattr(owner, leaf)
        for index in range(start, self.stop if stop is None else stop):
            node = self.nodes[index]
            if node.op == "call_function":
                result = self._call(index, node, held, before.get(index))
            elif node.op == "get_attr":
                owner, leaf = self._owners[index]
                result = getattr(owner, leaf)
            else:
                result = x
            held[index] = after[index](result) if index in after else result
            for dead in self._dying[index]:
                if dead != index or not node.users:
                    held[dead] = None
        if stop is not None:
            return {index: held[index] for index in self.live(stop)}
        return _fill(self._args[self.stop][0], held)
