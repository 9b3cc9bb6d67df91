"""Branches: channels of a residual stream, one for each layer that adds to it.

Channels tied by additions can only be *removed* together, so ``find_groups`` makes one group of them. To take a
backdoor out it is enough to set some of them to zero: what one layer adds to the stream, the rest of the stream left
as it is. That is a finer cut, and it costs less clean accuracy (ours; ANP, arXiv 2110.14430, masks such channels singly,
too). A group all of whose branches are cut is cut as a whole and can be removed, unless a norm reads the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import GraphModule, Node

from modelmend.model.groups import Group, Site
from modelmend.model.propagate import base_name

aten = torch.ops.aten
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_NORM = aten.batch_norm.default
_CARRIES = frozenset(
    (
        "add", "add_", "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "gelu", "silu", "silu_", "hardswish",
        "hardswish_", "elu", "tanh", "mish", "max_pool2d", "avg_pool2d", "dropout", "clone", "contiguous", "cat", "slice",
        "batch_norm", "mean", "adaptive_avg_pool2d", "view", "reshape", "flatten", "squeeze",
    )
)  # fmt: skip
"""Operators that hand a value on, or add it to another."""
_READERS = frozenset(
    ("conv1d", "conv2d", "conv3d", "convolution", "linear", "addmm", "mm", "matmul", "output", "sym_size")
)
KIND = "branch"
LARGEST = 8000
"""Nodes up to which a network is taken apart: what is measured between pairs of nodes takes memory."""


@dataclass(frozen=True)
class _Maker:
    """A convolution, with the batch norm that alone reads it: where its value is, and the tensors that make it."""

    value: Node
    tensors: frozenset[str]


def split_branches(graph: GraphModule, groups: Sequence[Group]) -> list[Group]:
    """Every group that is a stream, taken apart; the others as they are, all numbered anew.

    A stream stays whole where a channel of it is made by anything but a convolution (and the batch norm behind it),
    where one layer makes several of its channels, or where anything but an addition combines them (a gate). A norm that
    reads the sum belongs to no branch. So does everything in a network of more than ``LARGEST`` nodes.

    Args:
        graph: The model form.
        groups: From ``find_groups`` on this graph.

    Returns:
        Groups in the order of the layers that make them; ``kind`` of a part is ``branch``. Their slices overlap in what
        reads them only.
    """
    makers, order = _makers(graph), {node: place for place, node in enumerate(graph.graph.nodes)}
    found: list[Group] = []
    for group in groups:
        parts = _branches(group, makers, order) if group.kind == "stream" else []
        found += parts or [group]
    if len(found) > LARGEST or len(found) == len(groups):
        return list(groups)
    first: dict[str, int] = {}
    for node, place in order.items():
        for name in _parameters(node):
            first.setdefault(name, place)
    found.sort(key=lambda group: min(first[p.param] for p in group.slices if p.param in first and p.role == "out"))
    return [replace(group, index=number) for number, group in enumerate(found)]


def wholly_cut(groups: Sequence[Group], cut: Iterable[Group]) -> list[Group]:
    """Groups of which nothing is left: themselves cut, or every branch of them.

    Args:
        groups: From ``find_groups``.
        cut: Some of ``split_branches`` of them.
    """
    zeroed = {(part.param, part.dim, i) for one in cut for part in one.slices if part.zero for i in part.index}
    return [
        group
        for group in groups
        if all((part.param, part.dim, i) in zeroed for part in group.slices if part.zero for i in part.index)
    ]


def _makers(graph: GraphModule) -> dict[str, _Maker]:
    """Weight -> its convolution, where nothing else uses a tensor of it and its value only adds to others."""
    found: dict[str, _Maker] = {}
    users: dict[str, set[Node]] = {}
    for node in graph.graph.nodes:
        for name in _parameters(node):
            users.setdefault(name, set()).add(node)
    for node in graph.graph.nodes:
        if node.target not in _CONVOLUTIONS:
            continue
        names = _parameters(node)
        readers = list(node.users)
        value = node
        if len(readers) == 1 and readers[0].target is _NORM and readers[0].args[0] is node:
            value = readers[0]
            names |= _parameters(value)
        weight = node.args[1]
        alone = all(users[name] <= {node, value} for name in names)
        if alone and isinstance(weight, Node) and weight.op == "get_attr" and _only_adds(value):
            found[str(weight.target)] = _Maker(value, frozenset(names))
    return found


def _only_adds(value: Node) -> bool:
    """Whether a value meets others in additions only, on its way to the layers that read it."""
    seen, queue = {value}, [value]
    while queue:
        for user in queue.pop().users:
            name = base_name(user) if user.op == "call_function" else user.op
            if name in _READERS or user in seen:
                continue
            if name not in _CARRIES:
                return False
            seen.add(user)
            queue.append(user)
    return True


def _parameters(node: Node) -> set[str]:
    return {str(source.target) for source in node.all_input_nodes if source.op == "get_attr"}


def _branches(group: Group, makers: dict[str, _Maker], order: dict[Node, int]) -> list[Group]:
    """The branches of one stream, or none where it cannot be taken apart."""
    reads = tuple(replace(part, zero=False) for part in group.slices if part.role == "in")
    makes = [part for part in group.slices if part.role in ("out", "value")]
    parts: list[Group] = []
    taken = 0
    for weight in makes:
        maker = makers.get(weight.param)
        if maker is None or weight.dim:
            continue
        mine = tuple(part for part in group.slices if part.param in maker.tensors and part.role != "in")
        taken += sum(part.role == "out" for part in mine)
        if len(weight.index) != 1 or any(part.index != weight.index or part.dim for part in mine):
            return []
        site = Site(maker.value.name, 1, weight.index, tuple(reader.name for reader in maker.value.users))
        layer = weight.param.removesuffix(".weight")
        parts.append(Group(group.index, layer, KIND, (site,), mine + reads, order[maker.value]))
    return parts if len(parts) > 1 and taken == len(makes) else []
