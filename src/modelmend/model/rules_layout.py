"""Operators that only move data: labels are moved by the operator itself, so any chain of them is right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from modelmend.model.labels import Value, compress, varying
from modelmend.model.propagate import Flow, Item, ParamRef, Rule, arguments, base_name
from modelmend.model.rules_weights import _give_up
from modelmend.model.shapes import Spec


def _labels_of(flow: Flow, node: Node, sources: list[Value]) -> Any:
    def lower(argument: Node) -> Any:
        item = flow.items[argument]
        if isinstance(item, Value | ParamRef):
            sources.append(flow.value(item))
            return sources[-1].full
        return item

    return map_arg(node.args, lower)


def _raise(flow: Flow, made: Any, zero: bool) -> Item:
    if isinstance(made, Tensor):
        return Value(tuple(made.shape), compress(made), zero)
    return tuple(_raise(flow, part, zero) for part in made)


def move(flow: Flow, node: Node) -> Item:
    """Apply the operator to the labels. The value stays zero where all labelled inputs are."""
    sources: list[Value] = []
    args = _labels_of(flow, node, sources)
    kwargs = {k: v for k, v in node.kwargs.items() if k not in ("dtype", "layout", "device", "pin_memory")}
    # Labels of an axis that does not vary are repeated without copies, which a view does not take.
    target = torch.ops.aten.reshape.default if base_name(node) in ("view", "_unsafe_view") else node.target
    made = target(*args, **kwargs)  # type: ignore[operator]
    return _raise(flow, made, all(s.zero for s in sources if bool((s.labels != 0).any())))


def expand(flow: Flow, node: Node) -> Item:
    """Repeating a fixed value along an axis of size 1: the copies get atoms, for fewer of them can be made."""
    made, source = move(flow, node), flow.value(node.args[0])
    assert isinstance(made, Value)
    spec, lead = flow.shapes[node], len(made.shape) - len(source.shape)
    before = (1,) * lead + source.shape
    axes = [d for d, (old, new) in enumerate(zip(before, made.shape, strict=True)) if old == 1 < new]
    if not isinstance(spec, Spec) or spec.batch == -1 or bool((source.labels != 0).any()):
        return made
    axes = [d for d in axes if d != spec.batch]
    if not axes:
        return made
    sizes = [made.shape[d] if d == axes[0] else 1 for d in range(len(made.shape))]
    return Value(made.shape, flow.atoms.new(made.shape[axes[0]]).reshape(sizes), zero=False)


def keep(flow: Flow, node: Node) -> Item:
    """The value goes through as it is (dropout in eval mode, casts, copies)."""
    return flow.value(node.args[0])


def transpose(flow: Flow, node: Node) -> Item:
    """Permutations keep a bare parameter a parameter, so that decomposed linear layers are still read."""
    item = flow.items[node.args[0]]  # type: ignore[index]
    if not isinstance(item, ParamRef):
        return move(flow, node)
    axes = torch.arange(2 ** len(item.shape)).reshape([2] * len(item.shape))
    order = [int(stride).bit_length() - 1 for stride in node.target(axes, *node.args[1:]).stride()]  # type: ignore[operator]
    dims = [len(item.shape) - 1 - position for position in order]
    return ParamRef(item.name, tuple(item.shape[d] for d in dims), tuple(item.dims[d] for d in dims))


def _cuts(axes: Callable[[Flow, Node], tuple[int, ...]], *, output: bool = False) -> Rule:
    """Move, and forbid labels to vary along axes that the operator takes apart by position."""

    def rule(flow: Flow, node: Node) -> Item:
        made = move(flow, node)
        value = made if output else flow.value(node.args[0])
        assert isinstance(value, Value)
        flow.forbidden.append((value.labels, tuple(d % len(value.shape) for d in axes(flow, node))))
        return made

    return rule


def _dim(position: int, default: int = 0) -> Callable[[Flow, Node], tuple[int, ...]]:
    def axes(flow: Flow, node: Node) -> tuple[int, ...]:
        given = arguments(node)
        dim = given[position] if len(given) > position and given[position] is not None else default
        return tuple(dim) if isinstance(dim, list | tuple) else (dim,)

    return axes


def _all(flow: Flow, node: Node) -> tuple[int, ...]:
    return tuple(range(len(flow.value(node.args[0]).shape)))


def _rolled(flow: Flow, node: Node) -> tuple[int, ...]:
    return _dim(2)(flow, node) if arguments(node)[2] else _all(flow, node)


def index(flow: Flow, node: Node) -> Item:
    """``x[indices]`` with constant indices: axes that are indexed cannot be cut."""
    indices: Any = node.args[1]
    held: list[Tensor | None] = []
    for part in indices:
        item = None if part is None else flow.items[part]
        if part is not None and not isinstance(item, ParamRef):
            return _give_up(flow, node)
        held.append(None if item is None else _constant(flow, item))  # type: ignore[arg-type]
    value = flow.value(node.args[0])
    made = torch.ops.aten.index.Tensor(value.full.contiguous(), held)
    taken = tuple(d for d, part in enumerate(held) if part is not None)
    flow.forbidden.append((value.labels, taken))
    return Value(tuple(made.shape), compress(made), value.zero)


def _constant(flow: Flow, ref: ParamRef) -> Tensor:
    from modelmend.model.propagate import attribute

    return attribute(flow.graph, ref.name).cpu().permute(ref.dims)


def index_select(flow: Flow, node: Node) -> Item:
    """``index_select(x, dim, index)`` along an unlabelled axis."""
    item = flow.items[node.args[2]]  # type: ignore[index]
    value, dim = flow.value(node.args[0]), node.args[1]
    assert isinstance(dim, int)
    if not isinstance(item, ParamRef):
        return _give_up(flow, node)
    made = value.full.index_select(dim, _constant(flow, item))
    flow.forbidden.append((value.labels, (dim % len(value.shape),)))
    return Value(tuple(made.shape), compress(made), value.zero)


def pad(flow: Flow, node: Node) -> Item:
    """Constant padding; channels that padding adds get atoms of their own, so that they can be tied and removed."""
    given = arguments(node)
    mode = given[2] if isinstance(given[2], str) else "constant"
    fill = given[3] if isinstance(given[2], str) else given[2]
    value, amounts = flow.value(given[0]), list(given[1])
    shape, rank = flow.shape(node), len(value.shape)
    labels = value.labels
    if mode != "constant":
        if any(d >= rank - len(amounts) // 2 for d in varying(labels)):
            return _give_up(flow, node)
        return Value(shape, labels, value.zero)
    for position in range(len(amounts) // 2):
        axis, (before, after) = rank - 1 - position, amounts[2 * position : 2 * position + 2]
        if (before or after) and (axis in varying(labels) or axis == 1):
            if min(before, after) < 0:
                return _give_up(flow, node)
            sizes = [shape[axis] - before - after if d == axis else s for d, s in enumerate(labels.shape)]
            new = flow.atoms.new(before + after).reshape([-1 if d == axis else 1 for d in range(rank)])
            new = new.expand([before + after if d == axis else s for d, s in enumerate(labels.shape)])
            labels = torch.cat(
                [new.narrow(axis, 0, before), labels.expand(sizes), new.narrow(axis, before, after)], axis
            )
    return Value(shape, labels, value.zero and not fill)


_MOVES = (
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "movedim",
    "slice", "narrow", "split", "split_with_sizes", "chunk", "cat", "concat", "repeat", "tile",
)  # fmt: skip
_KEEPS = (
    "clone", "contiguous", "alias", "detach", "dropout", "feature_dropout", "alpha_dropout", "lift_fresh_copy", "to",
    "_to_copy", "type_as",
)  # fmt: skip

RULES: dict[str, Rule] = {
    **dict.fromkeys(_MOVES, move),
    **dict.fromkeys(_KEEPS, keep),
    **dict.fromkeys(("permute", "transpose", "t", "numpy_T", "swapaxes", "swapdims", "mT"), transpose),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), expand),
    "select": _cuts(_dim(1)),
    "unbind": _cuts(_dim(1)),
    "roll": _cuts(_rolled),
    "flip": _cuts(_dim(1)),
    "index": index,
    "index_select": index_select,
    **dict.fromkeys(("pad", "constant_pad_nd"), pad),
}
