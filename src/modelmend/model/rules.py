"""One rule an operator: how labels go through it. Operators are looked up by name; what has no rule is fixed."""

from __future__ import annotations

import torch
from torch.fx import Node

from modelmend.model import rules_layout, rules_pointwise, rules_weights
from modelmend.model.labels import Value
from modelmend.model.propagate import Flow, Item, ParamRef, Rule, arguments, base_name
from modelmend.model.shapes import Count, Entry, Spec


def _outputs(flow: Flow, entry: Entry) -> Item:
    if isinstance(entry, Spec):
        return flow.fixed(entry.shape)
    if isinstance(entry, tuple):
        return tuple(_outputs(flow, part) for part in entry)
    return entry.at_two if isinstance(entry, Count) else entry


def no_rule(flow: Flow, node: Node) -> Item:
    """Fix every labelled input; the outputs are fixed. Element-wise operators are known by their tag."""
    if torch.Tag.pointwise in getattr(node.target, "tags", ()):
        return rules_pointwise.pointwise(flow, node)
    touched = False
    for source in node.all_input_nodes:
        item = flow.items[source]
        for part in item if isinstance(item, tuple) else (item,):
            if isinstance(part, Value | ParamRef):
                touched |= flow.labelled(part)
                flow.fix(flow.value(part))
    if touched:
        flow.unknown.add(base_name(node))
    return _outputs(flow, flow.shapes[node])


def _getitem(flow: Flow, node: Node) -> Item:
    item, index = flow.items[node.args[0]], node.args[1]  # type: ignore[index]
    assert isinstance(item, tuple) and isinstance(index, int)
    return item[index]  # type: ignore[no-any-return]


def _constant(flow: Flow, node: Node) -> Item:
    return _outputs(flow, flow.shapes[node])


def _full_like(flow: Flow, node: Node) -> Item:
    value = flow.value(arguments(node)[0])
    return Value(value.shape, value.labels, zero=False)


RULES: dict[str, Rule] = {
    "getitem": _getitem,
    **dict.fromkeys(("arange", "full", "zeros", "ones", "empty", "scalar_tensor"), _constant),
    **dict.fromkeys(("full_like", "zeros_like", "ones_like"), _full_like),
    **rules_weights.RULES,
    **rules_layout.RULES,
    **rules_pointwise.RULES,
}
"""Operator name (``conv2d`` for ``aten.conv2d.default``) to its rule."""
