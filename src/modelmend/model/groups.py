"""Neuron groups: the smallest sets of channels and hidden units that can be removed without changing anything else.

Groups are read off the graph (``propagate``); architecture names play no part.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from modelmend.errors import InputError
from modelmend.model.labels import Value, compress, varying
from modelmend.model.propagate import Flow, Read, attribute, base_name, propagate
from modelmend.model.shapes import Spec


@dataclass(frozen=True)
class Site:
    """Where a group's value is read: multiply these channels by 0 and the group is zero at this reader.

    Attributes:
        node: Name of the graph node that holds the value.
        dim: Its channel axis, batch axis counted.
        channels: Positions along the axis.
        readers: Names of the nodes that sum over the axis.
    """

    node: str
    dim: int
    channels: tuple[int, ...]
    readers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slice:
    """Positions along one axis of a parameter or buffer that go with a group.

    Attributes:
        param: Dotted name.
        dim: Axis.
        index: Positions along it.
        role: ``out`` makes the value (convolution and linear rows, biases, embedding columns), ``in`` reads it,
            ``norm`` is scale, shift or statistics of a norm, ``value`` is combined with it element by element.
        zero: Setting these positions to zero is part of making the group zero at every reader.
    """

    param: str
    dim: int
    index: tuple[int, ...]
    role: str
    zero: bool


@dataclass(frozen=True)
class Group:
    """Channels that are pruned together.

    Attributes:
        index: Position in the list of groups.
        layer: Name of the first layer that makes the value.
        kind: ``channel``, ``unit`` (hidden unit of a linear layer), ``stream`` (several layers add to it), ``head``
            (attention head), ``norm group``, ``conv group``.
        sites: Where the value is read, in graph order.
        slices: What belongs to it in parameters and buffers.
        depth: Position of the first site among the nodes of the graph.
    """

    index: int
    layer: str
    kind: str
    sites: tuple[Site, ...]
    slices: tuple[Slice, ...]
    depth: int

    @property
    def channels(self) -> int:
        """Number of channels at the first site."""
        return len(self.sites[0].channels)


_KINDS = ("head", "norm group", "conv group", "stream")


def find_groups(graph: GraphModule, input_shape: tuple[int, ...]) -> list[Group]:
    """Every prunable group, in graph order of the layers that make them; deterministic.

    Not offered: output classes, channels normalised jointly with kept ones, single dimensions of an attention head,
    whole layers, and whatever an operator without a rule touches.

    Args:
        graph: The model form.
        input_shape: Of one sample, without the batch axis.

    Raises:
        ModelUnsupported: the graph does not run on this shape.
    """
    return groups_of(propagate(graph, input_shape))


def groups_of(flow: Flow) -> list[Group]:
    """The groups of a finished walk (see ``find_groups``)."""
    atoms = flow.atoms
    order = {node: position for position, node in enumerate(flow.graph.graph.nodes)}
    slices: dict[int, list[Slice]] = {}
    producers: dict[int, list[str]] = {}
    for use in flow.uses.values():
        for atom, index in _by_atom(atoms.find(use.labels)):
            slices.setdefault(atom, []).append(Slice(use.param, use.dim, index, use.role, use.zero))
            if use.role == "out" and len(attribute(flow.graph, use.param).shape) > 1:
                producers.setdefault(atom, []).append(use.param)
    for name, value in flow.elements.items():
        labels = compress(atoms.find(value.labels))
        for dim in varying(labels):
            for atom, index in _by_atom(labels.reshape(-1)):
                slices.setdefault(atom, []).append(Slice(name, dim, index, "value", value.zero))
    sites: dict[int, dict[tuple[Node, int], tuple[int, ...]]] = {}
    readers: dict[tuple[Node, int], list[str]] = {}
    for read in map(partial(_hoist, flow), flow.reads):
        readers.setdefault((read.node, read.dim), []).append(read.reader.name)
        for atom, index in _by_atom(atoms.find(read.labels)):
            sites.setdefault(atom, {})[read.node, read.dim] = index
    whole = _whole(flow)
    kinds = {
        kind: set(atoms.find(torch.cat([m.reshape(-1) for m in marked])).tolist())
        for kind, marked in flow.marks.items()
    }
    groups: list[Group] = []
    for atom, made in producers.items():
        if atom in whole or atom not in sites:
            continue
        places = sorted(sites[atom].items(), key=lambda item: (order[item[0][0]], item[0][1]))
        kind = next((k for k in _KINDS if atom in kinds.get(k, ())), None)
        if kind is None:
            kind = "unit" if all(attribute(flow.graph, name).dim() == 2 for name in made) else "channel"
        groups.append(
            Group(
                index=len(groups),
                layer=made[0].removesuffix(".weight"),
                kind=kind,
                sites=tuple(Site(node.name, dim, index, tuple(readers[node, dim])) for (node, dim), index in places),
                slices=tuple(slices[atom]),
                depth=order[places[0][0][0]],
            )
        )
    return groups


_PASSES = frozenset(
    (
        "view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "t",
        "clone", "contiguous", "dropout",
    )
)  # fmt: skip


def _hoist(flow: Flow, read: Read) -> Read:
    """Move a read to before the operators that only rearrange, where channels are an axis of their own."""
    while read.node.op == "call_function" and base_name(read.node) in _PASSES and len(read.node.users) == 1:
        source = read.node.args[0]
        item = flow.items[source] if isinstance(source, Node) else None
        if not isinstance(source, Node) or not isinstance(item, Value):
            break
        labels = compress(flow.atoms.find(item.labels))
        axes = varying(labels)
        spec = flow.shapes[source]
        # Where samples share an axis with the channels, the channels' positions would depend on the batch.
        if len(axes) != 1 or not isinstance(spec, Spec) or (spec.batch == -1 and spec.merged in (None, axes[0])):
            break
        read = Read(read.node, source, axes[0], labels.reshape(-1))
    return read


def _by_atom(labels: Tensor) -> Iterable[tuple[int, tuple[int, ...]]]:
    """``(atom, positions)`` of a one-dimensional label vector, without the fixed atom, by first position."""
    found: dict[int, list[int]] = {}
    for position, atom in enumerate(labels.tolist()):
        if atom:
            found.setdefault(atom, []).append(position)
    return ((atom, tuple(index)) for atom, index in found.items())


def _whole(flow: Flow) -> set[int]:
    """Atoms whose removal would leave some value or parameter axis empty."""
    found = set()
    for labels in (use.labels for use in flow.uses.values()):
        atoms = flow.atoms.find(labels)
        if bool((atoms == atoms[0]).all()):
            found.add(int(atoms[0]))
    for _, value in flow.values():
        labels = compress(flow.atoms.find(value.labels))
        if labels.numel() == 1:
            found.add(int(labels))
    return found


def _covered(graph: GraphModule, groups: Iterable[Group]) -> dict[str, dict[int, list[int]]]:
    found: dict[str, dict[int, list[int]]] = {}
    for group in groups:
        for part in group.slices:
            if part.zero:
                found.setdefault(part.param, {}).setdefault(part.dim, []).extend(part.index)
    return found


@torch.no_grad()
def zero_groups(graph: GraphModule, groups: Iterable[Group]) -> None:
    """Set groups to zero in place: rows that make them, biases, norm scale and shift; nothing else changes.

    Where an operator between maker and reader turns zero into something else (a sigmoid), the reader's columns go to
    zero as well, so that a group counts for nothing at every reader.

    Args:
        graph: The model form; its parameters are changed.
        groups: From ``find_groups`` on this graph.
    """
    for name, dims in _covered(graph, groups).items():
        tensor = attribute(graph, name)
        for dim, index in dims.items():
            if max(index) >= tensor.shape[dim]:
                raise InputError(
                    "the groups were found on another graph",
                    field=name,
                    fix="call find_groups on the graph that you edit",
                )
            tensor.index_fill_(dim, torch.tensor(sorted(set(index)), device=tensor.device), 0)
