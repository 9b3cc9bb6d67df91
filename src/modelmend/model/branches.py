"""Branches: channels of a residual stream, one for each layer that adds to it.

Channels tied by additions can only be *removed* together, so ``find_groups`` makes one group of them. To take a
backdoor out it is enough to set some of them to zero: what one layer adds to the stream, the rest of the stream left
as it is. That is a finer cut, and it costs less clean accuracy (ours; ANP, arXiv 2110.14430, masks such channels singly,
too). A group all of whose branches are cut is cut as a whole and can be removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx import GraphModule, Node

from modelmend.model.groups import Group, Site, Slice

aten = torch.ops.aten
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
_NORM = aten.batch_norm.default
KIND = "branch"


@dataclass(frozen=True)
class _Maker:
    """A convolution, with the batch norm that alone reads it: where its value is, and the tensors that make it."""

    value: Node
    tensors: frozenset[str]


def split_branches(graph: GraphModule, groups: Sequence[Group]) -> list[Group]:
    """Every group that is a stream, taken apart; the others as they are, all numbered anew.

    A stream stays whole where a channel of it is made by anything but a convolution (and the batch norm behind it), or
    where one layer makes several of its channels. A norm that reads the sum belongs to no branch.

    Args:
        graph: The model form.
        groups: From ``find_groups`` on this graph.

    Returns:
        Groups in the order given; ``kind`` of a part is ``branch``. Their slices overlap in what reads them only.
    """
    makers, order = _makers(graph), {node: place for place, node in enumerate(graph.graph.nodes)}
    found: list[Group] = []
    for group in groups:
        parts = _branches(group, makers, order) if group.kind == "stream" else []
        found += parts or [group]
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
    """Weight -> its convolution; weights that several nodes use are left out."""
    found: dict[str, _Maker] = {}
    shared: set[str] = set()
    for node in graph.graph.nodes:
        if node.target not in _CONVOLUTIONS:
            continue
        names = _parameters(node)
        readers = list(node.users)
        value = node
        if len(readers) == 1 and readers[0].target is _NORM and readers[0].args[0] is node:
            value = readers[0]
            names |= _parameters(value)
        shared |= names & {name for maker in found.values() for name in maker.tensors}
        weight = node.args[1]
        if isinstance(weight, Node) and weight.op == "get_attr":
            found[str(weight.target)] = _Maker(value, frozenset(names))
    return {name: maker for name, maker in found.items() if not maker.tensors & shared}


def _parameters(node: Node) -> set[str]:
    return {str(source.target) for source in node.all_input_nodes if source.op == "get_attr"}


def _branches(group: Group, makers: dict[str, _Maker], order: dict[Node, int]) -> list[Group]:
    """The branches of one stream, or none where it cannot be taken apart."""
    reads = tuple(part for part in group.slices if part.role == "in")
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
        parts.append(_branch(group, maker, weight, mine + reads, order))
    return parts if len(parts) > 1 and taken == len(makes) else []


def _branch(group: Group, maker: _Maker, weight: Slice, slices: tuple[Slice, ...], order: dict[Node, int]) -> Group:
    site = Site(maker.value.name, 1, weight.index, tuple(reader.name for reader in maker.value.users))
    return Group(group.index, weight.param.removesuffix(".weight"), KIND, (site,), slices, order[maker.value])
