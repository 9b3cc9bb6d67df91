"""The walk over a graph that finds which elements of activations and weights belong together.

Conservative: an operator without a rule fixes everything that touches it, so a group is offered only when every
operator on its way is understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from modelmend.model.labels import Atoms, Value, compress, varying
from modelmend.model.shapes import Count, Entry, Spec, propagate_shapes

ELEMENTWISE_LIMIT = 1 << 22
"""A parameter with more elements than this is never labelled element by element."""


@dataclass(frozen=True)
class ParamRef:
    """A parameter or buffer that no operator but a transposition has touched; ``dims[i]`` is its own axis of axis i."""

    name: str
    shape: tuple[int, ...]
    dims: tuple[int, ...]


@dataclass
class Use:
    """One axis of a parameter whose positions belong to atoms.

    Attributes:
        param: Name of the parameter or buffer.
        dim: Axis.
        labels: ``(size of the axis,)``.
        role: ``out`` makes the value, ``in`` reads it, ``norm`` and ``value`` belong to it.
        zero: Setting these positions to zero is what makes the removed value zero.
    """

    param: str
    dim: int
    labels: Tensor
    role: str
    zero: bool


@dataclass(frozen=True)
class Read:
    """A place where a value is summed over its labelled axis: ``node`` holds it, ``reader`` sums."""

    reader: Node
    node: Node
    dim: int
    labels: Tensor


Item = Value | ParamRef | tuple[Any, ...] | int | float | bool | None
Rule = Callable[["Flow", Node], Item]


@dataclass
class Flow:
    """What the walk found.

    Attributes:
        graph: The model form.
        shapes: Of every node, at batch 2.
        atoms: Which atoms are tied.
        items: Labels of every node.
        uses: Parameter axes, by ``(parameter, axis)``.
        elements: Parameters labelled element by element.
        reads: Where values are summed over their labelled axis.
        marks: Kind -> labels that this kind of operator has seen.
        unknown: Operators without a rule that touched labelled values.
    """

    graph: GraphModule
    shapes: dict[Node, Entry]
    atoms: Atoms = field(default_factory=Atoms)
    items: dict[Node, Item] = field(default_factory=dict)
    uses: dict[tuple[str, int], Use] = field(default_factory=dict)
    elements: dict[str, Value] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    marks: dict[str, list[Tensor]] = field(default_factory=dict)
    forbidden: list[tuple[Tensor, tuple[int, ...]]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def shape(self, node: Node) -> tuple[int, ...]:
        """Shape of a node that holds one tensor."""
        entry = self.shapes[node]
        assert isinstance(entry, Spec)
        return entry.shape

    def fixed(self, shape: Sequence[int]) -> Value:
        """A value of which nothing can be removed."""
        return Value(tuple(shape), torch.zeros([1] * len(shape), dtype=torch.int64))

    def value(self, argument: Any) -> Value:
        """Labels of an argument; a parameter is labelled element by element."""
        item = self.items[argument] if isinstance(argument, Node) else argument
        if isinstance(item, ParamRef):
            whole = self._elements(item.name)
            return Value(item.shape, compress(self.atoms.find(whole.full.permute(item.dims))), whole.zero)
        assert isinstance(item, Value)
        return Value(item.shape, compress(self.atoms.find(item.labels)), item.zero)

    def _elements(self, name: str) -> Value:
        if name not in self.elements:
            tensor = attribute(self.graph, name)
            if not tensor.is_floating_point() or tensor.numel() > ELEMENTWISE_LIMIT:
                self.elements[name] = self.fixed(tensor.shape)
            else:
                labels = self.atoms.new(tensor.numel()).reshape(tensor.shape)
                self.elements[name] = Value(tuple(tensor.shape), labels, _only_added(self.graph, name))
        return self.elements[name]

    def labelled(self, argument: Any) -> bool:
        """Whether any element can still be removed."""
        return bool((self.value(argument).labels != 0).any())

    def fix(self, value: Value) -> None:
        """Nothing of this value can be removed."""
        self.atoms.fix(value.labels)

    def use(self, ref: ParamRef, axis: int, labels: Tensor, role: str, zero: bool) -> None:
        """Record that positions along an axis of a parameter belong to atoms; a shared parameter ties its uses."""
        dim = ref.dims[axis]
        labels = labels.reshape(-1).expand(ref.shape[axis])
        known = self.uses.get((ref.name, dim))
        if known is None:
            self.uses[ref.name, dim] = Use(ref.name, dim, labels, role, zero)
        else:
            self.atoms.tie(known.labels, labels)
            known.zero = known.zero or zero

    def mark(self, kind: str, labels: Tensor) -> None:
        """Remember what kind of operator tied these labels."""
        self.marks.setdefault(kind, []).append(labels)

    def values(self) -> Iterator[tuple[Node | str, Value]]:
        """Every labelled tensor: of nodes, then of parameters labelled element by element."""
        for node, item in self.items.items():
            for part in item if isinstance(item, tuple) else (item,):
                if isinstance(part, Value):
                    yield node, part
        yield from self.elements.items()


def attribute(graph: GraphModule, name: str) -> Tensor:
    """The parameter or buffer of this dotted name."""
    found: Any = graph
    for part in name.split("."):
        found = getattr(found, part)
    assert isinstance(found, Tensor)
    return found


def base_name(node: Node) -> str:
    """``conv2d`` of ``aten.conv2d.default``; in-place forms lose their underscore; other targets give their name."""
    name = str(node.target)
    if name.startswith("aten."):
        name = name.split(".")[1]
        return name.rstrip("_") or name
    return getattr(node.target, "__name__", name)


def arguments(node: Node) -> list[Any]:
    """Positional arguments by schema, defaults filled in; keyword-only ones after them, in schema order."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return list(node.args)
    given: list[Any] = []
    for index, argument in enumerate(schema.arguments):
        if index < len(node.args):
            given.append(node.args[index])
        else:
            given.append(
                node.kwargs.get(argument.name, argument.default_value if argument.has_default_value() else None)
            )
    return given


_LAYOUT = {
    "view",
    "reshape",
    "permute",
    "transpose",
    "t",
    "expand",
    "unsqueeze",
    "squeeze",
    "flatten",
    "clone",
    "index",
}
_LINEAR = {"add", "sub", "mul"}


def _only_added(graph: GraphModule, name: str) -> bool:
    """Whether setting elements of a parameter to zero can do nothing but make a sum smaller (never a division by 0)."""
    todo = [node for node in graph.graph.nodes if node.op == "get_attr" and node.target == name]
    while todo:
        for user in todo.pop().users:
            if base_name(user) in _LAYOUT:
                todo.append(user)
            elif base_name(user) not in _LINEAR:
                return False
    return True


def propagate(graph: GraphModule, input_shape: tuple[int, ...]) -> Flow:
    """Walk the graph once with the rules, then tie until every removal is a slab of one axis.

    Args:
        graph: The model form.
        input_shape: Of one sample, without the batch axis.

    Raises:
        ModelUnsupported: the graph does not run on this shape.
    """
    from modelmend.model.rules import RULES, no_rule

    flow = Flow(graph, propagate_shapes(graph, input_shape))
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            flow.items[node] = flow.fixed(flow.shape(node))
        elif node.op == "get_attr":
            shape = flow.shape(node)
            flow.items[node] = ParamRef(str(node.target), shape, tuple(range(len(shape))))
        elif node.op == "output":
            flow.fix(flow.value(node.args[0]))
        elif isinstance(flow.shapes[node], Spec | tuple):
            flow.items[node] = RULES.get(base_name(node), no_rule)(flow, node)
        else:
            entry = flow.shapes[node]
            flow.items[node] = entry.at_two if isinstance(entry, Count) else None if isinstance(entry, Spec) else entry
    _settle(flow)
    return flow


def _settle(flow: Flow) -> None:
    """Tie until each value varies along one axis only, and along none that its reader cannot cut."""
    for name in flow.elements.keys() & {param for param, _ in flow.uses}:
        flow.fix(flow.elements[name])
        for (param, _), use in flow.uses.items():
            if param == name:
                flow.atoms.fix(use.labels)
    changed = True
    while changed:
        changed = False
        for labels, dims in flow.forbidden:
            now = compress(flow.atoms.find(labels))
            if any(now.shape[d] > 1 for d in dims):
                changed |= flow.atoms.fix(now)
        for _, value in flow.values():
            now = compress(flow.atoms.find(value.labels))
            axes = varying(now)
            if len(axes) > 1:
                keep = axes[max(range(len(axes)), key=lambda i: now.shape[axes[i]])]
                changed |= flow.atoms.tie_along(now, [d for d in axes if d != keep])
