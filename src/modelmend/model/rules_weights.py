"""Operators with weights: convolutions, linear layers, embeddings and normalisations."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from modelmend.model.labels import Value, compress, varying
from modelmend.model.propagate import Flow, Item, ParamRef, Read, Rule, arguments


def _refs(flow: Flow, parts: list[Any]) -> list[ParamRef | None] | None:
    """The parameters behind arguments (None where absent); None when one of them is computed."""
    found: list[ParamRef | None] = []
    for part in parts:
        item = flow.items[part] if isinstance(part, Node) else part
        if not (item is None or isinstance(item, ParamRef)):
            return None
        found.append(item)
    return found


def _give_up(flow: Flow, node: Node) -> Item:
    from modelmend.model.rules import no_rule

    return no_rule(flow, node)


def _spread(labels: torch.Tensor, axis: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Labels of one axis as compressed labels of a whole value."""
    sizes = [1] * len(shape)
    sizes[axis] = -1
    return labels.reshape(sizes)


def _along(flow: Flow, value: Value, axis: int) -> torch.Tensor | None:
    """The labels along ``axis`` when they vary along no other axis."""
    if set(varying(value.labels)) - {axis}:
        return None
    return value.labels.expand(*(s if d == axis else 1 for d, s in enumerate(value.shape))).reshape(-1)


def _contract(
    flow: Flow, node: Node, source: Node, axis: int, weight: ParamRef, out: int, into: int, bias: ParamRef | None
) -> Value | None:
    """A dense product: reads ``axis`` of ``source`` through axis ``into`` of the weight, makes new atoms on ``out``."""
    value = flow.value(source)
    labels = _along(flow, value, axis)
    if labels is None:
        return None
    flow.reads.append(Read(node, source, axis, labels))
    flow.use(weight, into, labels, "in", zero=not value.zero)
    made = flow.atoms.new(weight.shape[out])
    flow.use(weight, out, made, "out", zero=True)
    if bias is not None:
        flow.use(bias, 0, made, "out", zero=True)
    shape = flow.shape(node)
    return Value(shape, _spread(made, axis if len(shape) > axis else -1, shape), zero=True)


def _linear(flow: Flow, node: Node, source: Node, weight: ParamRef, out: int, bias: ParamRef | None) -> Item:
    """``x W^T + b`` over the last axis. Over another axis than the labelled one it works on each channel apart."""
    value = flow.value(source)
    last = len(value.shape) - 1
    if varying(value.labels) not in ([], [last]):
        if last in varying(value.labels):
            return _give_up(flow, node)
        whole = torch.zeros(1, dtype=torch.int64)
        for axis in (0, 1):
            flow.use(weight, axis, whole, "value", zero=False)
        if bias is not None:
            flow.use(bias, 0, whole, "value", zero=False)
        return Value(flow.shape(node), value.labels, zero=value.zero and bias is None)
    return _contract(flow, node, source, last, weight, out, 1 - out, bias)


def linear(flow: Flow, node: Node) -> Item:
    """``aten.linear(x, weight, bias)``."""
    source, weight, bias = arguments(node)[:3]
    refs = _refs(flow, [weight, bias])
    if refs is None or refs[0] is None:
        return _give_up(flow, node)
    return _linear(flow, node, source, refs[0], 0, refs[1])


def addmm(flow: Flow, node: Node) -> Item:
    """``aten.addmm(bias, x, weight^T)``: a linear layer after decomposition."""
    bias, source, weight, beta, alpha = arguments(node)[:5]
    refs = _refs(flow, [weight, bias])
    if refs is None or refs[0] is None or (refs[1] is not None and len(refs[1].shape) != 1) or (beta, alpha) != (1, 1):
        return _give_up(flow, node)
    return _linear(flow, node, source, refs[0], 1, refs[1])


def convolution(flow: Flow, node: Node) -> Item:
    """Convolutions of any rank. Groups of a grouped convolution are removed whole, inputs and outputs together."""
    name, given = str(node.target), arguments(node)
    source, refs = given[0], _refs(flow, given[1:3])
    transposed = "transpose" in name or ("aten.convolution" in name and bool(given[6]))
    groups = given[8 if "aten.convolution" in name else 6]
    if refs is None or refs[0] is None:
        return _give_up(flow, node)
    weight, bias = refs[0], refs[1]
    out, into = (1, 0) if transposed else (0, 1)
    if groups == 1:
        return _contract(flow, node, source, 1, weight, out, into, bias) or _give_up(flow, node)
    value = flow.value(source)
    labels = _along(flow, value, 1)
    if labels is None or transposed:
        return _give_up(flow, node)
    made = flow.atoms.new(weight.shape[0])
    if not bool((flow.atoms.find(labels) != 0).any()):
        # A depthwise filter of fixed channels cannot go, for the channel would stay; neither can a part of a group.
        made = torch.zeros_like(made)
    inputs, outputs = labels.reshape(groups, -1), made.reshape(groups, -1)
    flow.atoms.tie(torch.cat([inputs, outputs], 1), inputs[:, :1])
    if inputs.shape[1] > 1:
        flow.mark("conv group", labels)
    flow.use(weight, 0, made, "out", zero=True)
    flow.use(weight, 1, torch.zeros(1, dtype=torch.int64), "value", zero=False)
    if bias is not None:
        flow.use(bias, 0, made, "out", zero=True)
    shape = flow.shape(node)
    return Value(shape, compress(flow.atoms.find(_spread(made, 1, shape))), zero=True)


def embedding(flow: Flow, node: Node) -> Item:
    """``aten.embedding(weight, indices)``: one atom a column."""
    weight, source = arguments(node)[:2]
    refs = _refs(flow, [weight])
    if refs is None or refs[0] is None or flow.labelled(source):
        return _give_up(flow, node)
    made, shape = flow.atoms.new(refs[0].shape[1]), flow.shape(node)
    flow.use(refs[0], 0, torch.zeros(1, dtype=torch.int64), "value", zero=False)
    flow.use(refs[0], 1, made, "out", zero=True)
    return Value(shape, _spread(made, len(shape) - 1, shape), zero=True)


def _channel_norm(flow: Flow, node: Node, parts: list[Any], groups: int | None) -> Item:
    """Normalisation of each channel (``groups`` None) or each group of channels apart; scale and shift go to zero."""
    value, refs = flow.value(node.args[0]), _refs(flow, parts)
    labels = _along(flow, value, 1)
    if refs is None or labels is None:
        return _give_up(flow, node)
    if groups is not None and groups < len(labels):
        flow.atoms.tie_along(labels.reshape(groups, -1), [1])
        flow.mark("norm group", labels)
    for index, ref in enumerate(refs):
        if ref is not None:
            flow.use(ref, 0, labels, "norm", zero=index < 2)
    entry = flow.shapes[node]
    made = Value(value.shape, compress(flow.atoms.find(value.labels)), zero=refs[0] is not None)
    if not isinstance(entry, tuple):
        return made
    return (made, *(flow.fixed(part.shape) for part in entry[1:]))


def batch_norm(flow: Flow, node: Node) -> Item:
    """Batch norm in eval mode and instance norm."""
    return _channel_norm(flow, node, arguments(node)[1:5], None)


def group_norm(flow: Flow, node: Node) -> Item:
    """``group_norm(x, groups, weight, bias)`` and ``native_group_norm(x, weight, bias, N, C, HxW, groups)``."""
    given = arguments(node)
    if "native" in str(node.target):
        return _channel_norm(flow, node, given[1:3], given[6])
    return _channel_norm(flow, node, given[2:4], given[1])


def layer_norm(flow: Flow, node: Node) -> Item:
    """Layer norm and RMS norm: what is normalised jointly is fixed; labels on other axes pass."""
    value, given = flow.value(node.args[0]), arguments(node)
    refs = _refs(flow, [part for part in given[2:4] if part is None or isinstance(part, Node)])
    inner = range(len(value.shape) - len(given[1]), len(value.shape))
    if refs is None:
        return _give_up(flow, node)
    if not varying(value.labels) or set(varying(value.labels)) & set(inner):
        flow.fix(value)
        value = flow.fixed(value.shape)
    for ref in refs:
        for axis in range(len(ref.shape) if ref is not None else 0):
            flow.use(ref, axis, torch.zeros(1, dtype=torch.int64), "value", zero=False)  # type: ignore[arg-type]
    shift = "rms" not in str(node.target) and refs[-1] is not None
    made = Value(value.shape, value.labels, zero=value.zero and not shift)
    entry = flow.shapes[node]
    return (made, *(flow.fixed(part.shape) for part in entry[1:])) if isinstance(entry, tuple) else made


RULES: dict[str, Rule] = {
    "linear": linear,
    "addmm": addmm,
    "embedding": embedding,
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "convolution"),
        convolution,
    ),
    **dict.fromkeys(
        ("batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "instance_norm"), batch_norm
    ),
    **dict.fromkeys(("group_norm", "native_group_norm"), group_norm),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), layer_norm),
}
