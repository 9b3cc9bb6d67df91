"""The graph of a model that lost channels: sizes, splits and group counts that operators name as numbers change."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from modelmend.errors import ModelUnsupported
from modelmend.model.propagate import Flow, arguments, base_name
from modelmend.model.shapes import BATCH, Count, Spec, placeholder

Kept = tuple[int, Tensor] | None
"""An axis and the positions along it that stay; None where nothing goes."""


@dataclass(frozen=True)
class Cut:
    """What stays of every value and parameter.

    Attributes:
        flow: The finished walk over the graph.
        params: Name -> axis -> positions that stay.
        values: Node -> what stays of its value, or of each of its values.
    """

    flow: Flow
    params: dict[str, dict[int, Tensor]]
    values: dict[Node, Any]

    def of(self, node: Any) -> Kept:
        """What stays of the value of a node that holds one tensor."""
        found = self.values.get(node) if isinstance(node, Node) else None
        return None if isinstance(found, list) else found

    def shape(self, node: Node) -> list[int]:
        """Shape after the cut, at batch 2."""
        sizes = list(self.flow.shape(node))
        if (kept := self.of(node)) is not None:
            sizes[kept[0]] = len(kept[1])
        return sizes


@dataclass
class _Writer:
    """The new graph while it is written."""

    cut: Cut
    root: nn.Module
    graph: Graph
    new: dict[Node, Node]
    numbers: dict[Node, int]
    batch: Node | None = None
    products: dict[int, Node] = field(default_factory=dict)

    def batch_size(self) -> Node:
        """A node that holds the batch size; the graph's own if it has one by now."""
        source = placeholder(self.cut.flow.graph)
        own = [n for n in source.users if base_name(n) == "sym_size" and n.args[1] == 0 and n in self.new]
        if own:
            return self.new[own[0]]
        if self.batch is None:
            with self.graph.inserting_after(self.new[source]):
                target, args = torch.ops.aten.sym_size.int, (self.new[source], 0)
                self.batch = self.graph.create_node("call_function", target, args, name="cut_batch")
        return self.batch

    def number(self, given: Any, wanted: int) -> Any:
        """An argument that holds ``wanted`` at batch 2: the given one if it does, else a number or a product."""
        if isinstance(given, Node):
            if self.numbers[given] == wanted:
                return self.new[given]
            if wanted % BATCH:
                raise ModelUnsupported("a size depends on the batch in a way that cannot be cut", field=given.name)
            if wanted == BATCH:
                return self.batch_size()
            if wanted not in self.products:
                args = (self.batch_size(), wanted // BATCH)
                self.products[wanted] = self.graph.create_node("call_function", operator.mul, args, name="cut_size")
            return self.products[wanted]
        return given if given in (-1, wanted) else wanted


Change = Callable[[_Writer, Node, list[Any]], tuple[Any, list[Any]]]
"""``(writer, node, arguments) -> (target, arguments)``, arguments still naming nodes of the old graph."""


def rewrite(graph: GraphModule, cut: Cut, root: nn.Module) -> Graph:
    """Copy the graph with the changes that the cut asks for.

    Args:
        graph: The model form before the cut.
        cut: What stays.
        root: Holds the cut parameters; constant indices are added to it.
    """
    made = Graph()
    writer = _Writer(cut, root, made, {}, {})
    for node in graph.graph.nodes:
        change = _CHANGES.get(base_name(node)) if node.op == "call_function" else None
        if change is None or not (_touched(cut, node) or _scale(cut, node)):
            writer.new[node] = made.node_copy(node, lambda n: writer.new[n])
        else:
            target, args = change(writer, node, list(node.args))
            kwargs = {k: _lower(writer, v) for k, v in node.kwargs.items()} | _scale(cut, node)
            lowered = tuple(_lower(writer, a) for a in args)
            writer.new[node] = made.create_node("call_function", target, lowered, kwargs, name=node.name)
        # Shapes that are noted at a node are those before the cut.
        noted = {} if node.op == "placeholder" else {"val", "tensor_meta", "example_value"}
        writer.new[node].meta = {key: value for key, value in node.meta.items() if key not in noted}
        writer.numbers[node] = _number(writer, node)
    return made


def _touched(cut: Cut, node: Node) -> bool:
    sources = [
        n for n in node.all_input_nodes if n in cut.values or (n.op == "get_attr" and str(n.target) in cut.params)
    ]
    return node in cut.values or bool(sources)


def _lower(writer: _Writer, argument: Any) -> Any:
    if isinstance(argument, Node):
        return writer.new.get(argument, argument)
    if isinstance(argument, list | tuple):
        return (
            type(argument)(_lower(writer, a) for a in argument)
            if type(argument) in (list, tuple)
            else [_lower(writer, a) for a in argument]
        )
    return argument


def _number(writer: _Writer, node: Node) -> int:
    """What a node that holds a number will hold after the cut, at batch 2."""
    entry = writer.cut.flow.shapes[node]
    if not isinstance(entry, int | Count) or isinstance(entry, bool):
        return 0
    if base_name(node) == "sym_size":
        return writer.cut.shape(node.args[0])[node.args[1]]  # type: ignore[arg-type, index]
    args = [writer.numbers[a] if isinstance(a, Node) else a for a in node.args]
    return int(node.target(*args))  # type: ignore[operator]


def _sizes(position: int) -> Change:
    """Sizes named in argument ``position`` become those of the cut value."""

    def change(writer: _Writer, node: Node, args: list[Any]) -> tuple[Any, list[Any]]:
        wanted = writer.cut.shape(node)
        args[position] = [writer.number(g, w) for g, w in zip(args[position], wanted, strict=True)]
        # A cut value may be laid out so that a view is no longer possible.
        return (torch.ops.aten.reshape.default if base_name(node) in ("view", "_unsafe_view") else node.target), args

    return change


def _unflatten(writer: _Writer, node: Node, args: list[Any]) -> tuple[Any, list[Any]]:
    source, dim, sizes = args
    dim %= len(writer.cut.flow.shape(source))
    wanted = writer.cut.shape(node)[dim : dim + len(sizes)]
    return node.target, [source, dim, [writer.number(g, w) for g, w in zip(sizes, wanted, strict=True)]]


def _group_count(position: int) -> Change:
    """Groups of channels that go whole: their number shrinks with the channels of the first argument."""

    def change(writer: _Writer, node: Node, args: list[Any]) -> tuple[Any, list[Any]]:
        full = arguments(node)
        before, after = writer.cut.flow.shape(full[0])[1], writer.cut.shape(full[0])[1]
        if full[position] > 1 and before != after:
            args = full[: max(position + 1, len(args))]
            args[position] = full[position] * after // before
        return node.target, args

    return change


def _native_group_norm(writer: _Writer, node: Node, args: list[Any]) -> tuple[Any, list[Any]]:
    before, after = args[4], writer.cut.shape(args[0])[1]
    return node.target, [*args[:4], after, args[5], args[6] * after // before, *args[7:]]


def _scale(cut: Cut, node: Node) -> dict[str, float]:
    """The scale that attention takes by default, as a constant that no later cut can change."""
    if base_name(node) != "scaled_dot_product_attention" or node.kwargs.get("scale") is not None:
        return {}
    query = node.args[0]
    assert isinstance(query, Node)
    return {"scale": cut.flow.shape(query)[-1] ** -0.5}


def _same(writer: _Writer, node: Node, args: list[Any]) -> tuple[Any, list[Any]]:
    return node.target, args


def _slice(writer: _Writer, node: Node, args: list[Any]) -> tuple[Any, list[Any]]:
    """A slice of the cut axis takes, of the positions it took, those that are left."""
    source, dim, start, end, step = arguments(node)
    source_kept = writer.cut.of(source)
    size = writer.cut.flow.shape(source)
    if source_kept is None or dim % len(size) != source_kept[0]:
        return node.target, args
    taken = range(size[source_kept[0]])[slice(start, end, step)]
    if step == 1:
        before = int((source_kept[1] < taken.start).sum())
        inside = int(((source_kept[1] >= taken.start) & (source_kept[1] < taken.stop)).sum())
        return node.target, [source, dim, before, before + inside, 1]
    places = torch.isin(source_kept[1], torch.tensor(list(taken))).nonzero().flatten()
    name = f"kept_{node.name}"
    writer.root.register_buffer(name, places.to(next(writer.root.parameters()).device))
    return torch.ops.aten.index_select.default, [source, dim, writer.graph.create_node("get_attr", name, name=name)]


def _narrow(writer: _Writer, node: Node, args: list[Any]) -> tuple[Any, list[Any]]:
    source, dim, start, length = args
    kept = writer.cut.of(source)
    if kept is None or dim % len(writer.cut.flow.shape(source)) != kept[0]:
        return node.target, args
    before = int((kept[1] < start).sum())
    return node.target, [source, dim, before, int(((kept[1] >= start) & (kept[1] < start + length)).sum())]


def _split(writer: _Writer, node: Node, args: list[Any]) -> tuple[Any, list[Any]]:
    """Parts of unequal size after the cut are named one by one."""
    full = arguments(node)
    dim = full[2] % len(writer.cut.flow.shape(full[0]))
    kept = writer.cut.of(full[0])
    if kept is None or kept[0] != dim:
        return node.target, args
    entries = writer.cut.flow.shapes[node]
    assert isinstance(entries, tuple)
    cuts = writer.cut.values.get(node, [None] * len(entries))
    sizes = []
    for entry, part in zip(entries, cuts, strict=True):
        assert isinstance(entry, Spec)
        sizes.append(entry.shape[dim] if part is None else len(part[1]))
    return torch.ops.aten.split_with_sizes.default, [full[0], sizes, dim]


def _pad(writer: _Writer, node: Node, args: list[Any]) -> tuple[Any, list[Any]]:
    """Padding of the cut axis adds as many positions as stay."""
    kept, rank = writer.cut.of(node), len(writer.cut.flow.shape(node))
    amounts = list(args[1])
    place = 2 * (rank - 1 - kept[0]) if kept is not None else len(amounts)
    if kept is not None and place < len(amounts):
        end = writer.cut.flow.shape(node)[kept[0]] - amounts[place + 1]
        amounts[place : place + 2] = [int((kept[1] < amounts[place]).sum()), int((kept[1] >= end).sum())]
    return node.target, [args[0], amounts, *args[2:]]


_CHANGES: dict[str, Change] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "expand", "broadcast_to"), _sizes(1)),
    "unflatten": _unflatten,
    "scaled_dot_product_attention": _same,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _group_count(6)),
    "convolution": _group_count(8),
    "group_norm": _group_count(1),
    "native_group_norm": _native_group_norm,
    "slice": _slice,
    "narrow": _narrow,
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
}
