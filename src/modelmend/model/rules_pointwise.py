"""Operators without weights: element-wise functions, reductions, pooling, softmax and products of activations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

from modelmend.model.labels import Value, compress, varying
from modelmend.model.propagate import Flow, Item, ParamRef, Read, Rule, arguments, base_name
from modelmend.model.rules_weights import _give_up
from modelmend.model.shapes import Spec

_PROBES = 16


def _zero_at_zero(flow: Flow, node: Node, operands: dict[Node, Value]) -> bool | None:
    """Whether the operator gives exact zeros when the operands that go to zero are zero, whatever the others hold.

    None when it gives infinities there (a logarithm, a division by the value).
    """
    draw = torch.Generator().manual_seed(0)

    def probe(argument: Node) -> Any:
        spec, value = flow.shapes[argument], operands.get(argument)
        if not isinstance(spec, Spec):
            return flow.items[argument]
        if spec.dtype == torch.bool:
            return torch.rand(_PROBES, generator=draw) < 0.5
        noise = torch.randn(_PROBES, generator=draw) * 3
        return (noise * (0 if value is not None and value.zero else 1)).to(spec.dtype)

    try:
        made = node.target(*map_arg(node.args, probe), **map_arg(node.kwargs, probe))  # type: ignore[operator]
    except (RuntimeError, TypeError, IndexError):
        return None
    if not isinstance(made, Tensor) or (made.is_floating_point() and not bool(made.isfinite().all())):
        return None
    return bool((made == 0).all())


def pointwise(flow: Flow, node: Node) -> Item:
    """Operands are tied element by element, as they broadcast."""
    shape, operands = flow.shape(node), dict[Node, Value]()
    for source in node.all_input_nodes:
        if isinstance(flow.items[source], Value | ParamRef):
            operands[source] = flow.value(source)
    aligned = {
        s: v.labels.reshape([1] * (len(shape) - len(v.shape)) + list(v.labels.shape)) for s, v in operands.items()
    }
    sizes = {s: (1,) * (len(shape) - len(v.shape)) + v.shape for s, v in operands.items()}
    vary = {d for labels in aligned.values() for d in varying(labels)}
    tied: list[Tensor] = []
    for source, labels in aligned.items():
        if math.prod(sizes[source]) == 1:
            flow.atoms.fix(labels)
        elif any(sizes[source][d] == 1 and shape[d] > 1 for d in vary):
            # Repeated along the labelled axis: nothing of it goes with one channel, and nothing else may go from it.
            flow.atoms.fix(labels)
        else:
            tied.append(labels)
    for labels in tied[1:]:
        flow.atoms.tie(tied[0], labels)
    if base_name(node) in ("add", "sub") and sum(isinstance(flow.items[s], Value) for s in operands) > 1 and tied:
        flow.mark("stream", tied[0])
    found = flow.fixed(shape).labels
    if tied:
        found = flow.atoms.find(tied[0] + found)
    zero = _zero_at_zero(flow, node, operands)
    if zero is None and any(v.zero and bool((v.labels != 0).any()) for v in operands.values()):
        for labels in tied:
            flow.atoms.fix(labels)
        found = flow.fixed(shape).labels
    return Value(shape, compress(found), bool(zero))


def _dims(rank: int, dims: Any) -> list[int]:
    if dims is None or dims == []:
        return list(range(rank))
    return [d % rank for d in (dims if isinstance(dims, list | tuple) else [dims])]


def _reduced(value: Value, dims: list[int], shape: tuple[int, ...]) -> Value:
    labels = value.labels
    for dim in sorted(dims, reverse=True):
        labels = labels.narrow(dim, 0, 1) if len(shape) == len(value.shape) else labels.select(dim, 0)
    return Value(shape, labels, value.zero)


def reduce(flow: Flow, node: Node) -> Item:
    """Mean, maximum and the like: labels along the reduced axes are fixed, for a kept zero is not an absent one."""
    value, given = flow.value(node.args[0]), arguments(node)
    if len(given) > 1 and isinstance(given[1], Node):
        return pointwise(flow, node)
    dims = _dims(len(value.shape), given[1] if len(given) > 1 and not isinstance(given[1], bool) else None)
    if set(varying(value.labels)) & set(dims):
        flow.fix(value)
        value = flow.fixed(value.shape)
    entry = flow.shapes[node]
    if isinstance(entry, tuple):
        return tuple(_reduced(value, dims, part.shape) for part in entry)
    return _reduced(value, dims, flow.shape(node))


def total(flow: Flow, node: Node) -> Item:
    """A sum over the labelled axis reads the value: zeros and absent ones give the same."""
    value, given = flow.value(node.args[0]), arguments(node)
    dims = _dims(len(value.shape), given[1] if isinstance(given[1], list | tuple | int) else None)
    vary = varying(value.labels)
    if len(vary) != 1 or vary[0] not in dims or not value.zero:
        return reduce(flow, node)
    source = node.args[0]
    assert isinstance(source, Node)
    flow.reads.append(Read(node, source, vary[0], value.full.movedim(vary[0], 0).flatten(1)[:, 0]))
    return flow.fixed(flow.shape(node))


def softmax(flow: Flow, node: Node) -> Item:
    """Labels along the normalised axis are fixed, others pass; nothing stays zero."""
    value = flow.value(node.args[0])
    dim = arguments(node)[1]
    if dim % len(value.shape) in varying(value.labels) or not varying(value.labels):
        flow.fix(value)
        value = flow.fixed(value.shape)
    return Value(value.shape, value.labels, zero=False)


def pool(flow: Flow, node: Node) -> Item:
    """Pooling and resizing over the trailing axes of each channel apart."""
    value, entry = flow.value(node.args[0]), flow.shapes[node]
    if set(varying(value.labels)) - {1}:
        return _give_up(flow, node)
    if isinstance(entry, tuple):
        return tuple(Value(part.shape, value.labels, value.zero) for part in entry)
    return Value(flow.shape(node), value.labels, value.zero)


def _head_atoms(flow: Flow, parts: list[Value], lead: tuple[int, ...]) -> Tensor:
    """Tie each batch entry of products of activations into one atom: a head goes whole."""
    flat = []
    for part in parts:
        labels = part.labels.expand(*part.labels.shape[:-2], *part.labels.shape[-2:])
        labels = labels.reshape([1] * (len(lead) + 2 - labels.dim()) + list(labels.shape))
        flat.append(labels.expand(*lead, *labels.shape[-2:]).flatten(len(lead)))
    joint = torch.cat(flat, -1)
    flow.atoms.tie(joint, joint[..., :1])
    return flow.atoms.find(joint[..., :1])


def matmul(flow: Flow, node: Node) -> Item:
    """A product with a weight is a linear layer; a product of activations ties whole heads."""
    first, second = arguments(node)[:2]
    weight = flow.items[second]
    if isinstance(weight, ParamRef) and len(weight.shape) == 2:
        from modelmend.model.rules_weights import _linear

        return _linear(flow, node, first, weight, 1, None)
    a, b = flow.value(first), flow.value(second)
    if len(a.shape) < 3 or len(b.shape) < 3:
        return _give_up(flow, node)
    return _product(flow, node, [a, b], a.zero or b.zero)


def _product(flow: Flow, node: Node, parts: list[Value], zero: bool) -> Item:
    shape = flow.shape(node)
    lead = shape[:-2]
    heads = _head_atoms(flow, parts, lead)
    flow.mark("head", heads)
    return Value(shape, compress(heads[..., None]), zero)


def attention(flow: Flow, node: Node) -> Item:
    """``scaled_dot_product_attention(q, k, v, mask)``: a head of q, k, v goes whole, and is zero where v is."""
    given = arguments(node)
    query, key, value = (flow.value(part) for part in given[:3])
    parts = [query, key, value]
    if given[3] is not None:
        mask = flow.value(given[3])
        if len(mask.shape) > 2 and mask.shape[-3] > 1:
            parts.append(mask)
        else:
            flow.fix(mask)
    if len({part.shape[-3] for part in parts}) > 1 or len(query.shape) < 4:
        return _give_up(flow, node)
    return _product(flow, node, parts, value.zero)


def prelu(flow: Flow, node: Node) -> Item:
    """``prelu(x, weight)``: one slope for all, or one a channel."""
    value, ref = flow.value(node.args[0]), flow.items[node.args[1]]  # type: ignore[index]
    if not isinstance(ref, ParamRef) or set(varying(value.labels)) - {1}:
        return _give_up(flow, node)
    labels = value.labels if math.prod(ref.shape) > 1 else torch.zeros(1, dtype=torch.int64)
    flow.use(ref, 0, labels, "norm", zero=False)
    return value


def glu(flow: Flow, node: Node) -> Item:
    """``a * sigmoid(b)`` of the two halves of an axis: a channel of one half goes with its twin."""
    value, dim = flow.value(node.args[0]), arguments(node)[1] % len(flow.shape(node))
    if dim not in varying(value.labels):
        flow.fix(value)
        return flow.fixed(flow.shape(node))
    first, second = value.labels.chunk(2, dim)
    flow.atoms.tie(first, second)
    return Value(flow.shape(node), compress(flow.atoms.find(first)), value.zero)


_REDUCTIONS = ("mean", "amax", "amin", "any", "all", "max", "min", "var", "std", "argmax", "argmin", "prod")
_POOLS = (
    "max_pool1d", "max_pool2d", "max_pool3d", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
    "upsample_nearest2d", "upsample_bilinear2d", "upsample_nearest1d", "upsample_bicubic2d",
)  # fmt: skip

_UNTAGGED = ("hardswish", "hardsigmoid", "hardtanh", "relu6", "mish", "silu", "selu", "celu", "log_sigmoid", "softplus")

RULES: dict[str, Rule] = {
    **dict.fromkeys(_UNTAGGED, pointwise),
    **dict.fromkeys(_REDUCTIONS, reduce),
    "sum": total,
    "glu": glu,
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"), softmax),
    **dict.fromkeys(_POOLS, pool),
    **dict.fromkeys(("matmul", "bmm", "mm"), matmul),
    "scaled_dot_product_attention": attention,
    **dict.fromkeys(("prelu", "_prelu_kernel"), prelu),
}
