"""Evaluating a model as if groups were pruned, without touching its weights; resuming behind what masks leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from modelmend.errors import InputError, ModelUnsupported
from modelmend.model.branches import KIND as BRANCH
from modelmend.model.execute import After, Before, Program
from modelmend.model.groups import Group
from modelmend.model.propagate import arguments, base_name
from modelmend.model.shapes import Count, Entry, Spec, known_shapes

_CHANNELWISE = frozenset(
    (
        "relu", "relu6", "leaky_relu", "gelu", "silu", "hardswish", "elu", "tanh", "mish", "max_pool2d",
        "avg_pool2d", "adaptive_avg_pool2d", "max_pool1d", "avg_pool1d", "max_pool2d_with_indices", "dropout", "clone",
        "contiguous",
    )
)  # fmt: skip
"""Unary, zero at zero, channels stay on axis 1: a mask before and a mask after are the same."""


_NORMS = ("batch_norm", "_native_batch_norm_legit_no_training")


def _clips(node: Node) -> bool:
    """A clip that leaves zero alone, such as ReLU6."""
    return base_name(node) in ("hardtanh", "clamp") and all(
        bound is None or (not isinstance(bound, Node) and sign * bound >= 0)
        for sign, bound in zip((-1, 1), arguments(node)[1:3], strict=True)
    )


def _first_of(node: Node) -> bool:
    """Whether a node takes the first of several results, of a batch norm or a pooling."""
    source = node.args[0] if base_name(node) == "getitem" and node.args[1] == 0 else None
    return isinstance(source, Node) and base_name(source) in (*_NORMS, "max_pool2d_with_indices")


@dataclass(frozen=True)
class Cache:
    """Values at a cut of the graph, from which evaluation resumes.

    Attributes:
        depth: First position to evaluate.
        values: Position -> value, for all that later nodes read.
        size: Samples in the batch.
        keep: The mask that was in force before the cut, ``(groups,)`` bool on the CPU.
        entries: Shape record of each held position.
    """

    depth: int
    values: dict[int, Any]
    size: int
    keep: Tensor
    entries: dict[int, Entry]

    def subset(self, index: Tensor | slice) -> Cache:
        """The cache of some of the samples: positions as an index tensor or a slice (a slice copies nothing)."""
        chosen = range(self.size)[index] if isinstance(index, slice) else index
        values = {p: _take(v, self.entries[p], index, len(chosen)) for p, v in self.values.items()}
        return replace(self, values=values, size=len(chosen))


def _take(value: Any, entry: Entry, index: Tensor | slice, size: int) -> Any:
    if isinstance(entry, Count):
        return entry.at(size)
    if isinstance(entry, tuple):
        return tuple(_take(v, e, index, size) for v, e in zip(value, entry, strict=True))
    if not isinstance(entry, Spec) or entry.batch is None:
        return value
    if isinstance(index, slice):
        return value[(slice(None),) * entry.batch + (index,)]
    return value.index_select(entry.batch, index.to(value.device))


@dataclass
class _Place:
    """Where a mask is applied: one site, or a batch norm whose scale and shift carry it."""

    position: int
    dim: int
    groups: list[tuple[int, tuple[int, ...]]]
    folds: bool
    index: Tensor | None = None

    def vector(self, keep: Tensor, channels: int) -> Tensor:
        """Mask of every channel from the mask of every group: ``(..., groups) -> (..., channels)``."""
        count = keep.shape[-1]
        if self.index is None or len(self.index) != channels:
            index = torch.full((channels,), count, dtype=torch.int64)
            for group, positions in self.groups:
                index[list(positions)] = group
            self.index = index
        self.index = self.index.to(keep.device)
        return torch.cat([keep, keep.new_ones(*keep.shape[:-1], 1)], -1)[..., self.index]


class Masked:
    """A model with a mask over its groups. ``keep[g] = 0`` is the same as ``zero_groups(graph, [groups[g]])``.

    A group's value is multiplied at every reader. Masks of zeros and ones go into the scale and shift of a batch norm
    where one makes the value, which costs nothing; otherwise activations are multiplied.

    Args:
        graph: The model form; never changed, and looked up at each run.
        groups: From ``find_groups`` on this graph, in any order; masks follow this order.
    """

    def __init__(self, graph: GraphModule, groups: Sequence[Group]) -> None:
        self.graph, self.groups = graph, list(groups)
        self.program = Program(graph)
        self._edges: dict[tuple[int, int], list[int]] = {}
        sites: dict[tuple[int, int], _Place] = {}
        for number, group in enumerate(self.groups):
            for site in group.sites:
                position = self.program.by_name[site.node]
                place = sites.setdefault((position, site.dim), _Place(position, site.dim, [], folds=False))
                place.groups.append((number, site.channels))
                readers = {self.program.by_name[name] for name in site.readers}
                self._edges[position, site.dim] = sorted(readers.union(self._edges.get((position, site.dim), [])))
        self._sites = sites
        self._places: dict[tuple[int, int], _Place] = {}
        for place in sites.values():
            norm = self._norm(self.program.nodes[place.position]) if place.dim == 1 else None
            where = place.position if norm is None else self.program.position[norm]
            known = self._places.setdefault((where, place.dim), _Place(where, place.dim, [], folds=norm is not None))
            known.groups += [pair for pair in place.groups if pair not in known.groups]
        self._of_group: list[list[tuple[int, int]]] = [[] for _ in self.groups]
        for key, place in self._places.items():
            for number, _ in place.groups:
                self._of_group[number].append(key)

    @staticmethod
    def _norm(node: Node) -> Node | None:
        """The affine batch norm that makes a value through channel-wise operators only."""
        while node.op == "call_function" and (base_name(node) in _CHANNELWISE or _first_of(node) or _clips(node)):
            source = node.args[0]
            if not isinstance(source, Node):
                return None
            node = source
        affine = base_name(node) in _NORMS and all(isinstance(a, Node) for a in arguments(node)[1:3])
        return node if affine else None

    def first_site_depth(self, group: int | Group) -> int:
        """Position of the first node that pruning a group changes; everything before can be reused.

        Args:
            group: Position in ``groups``, or the group itself.
        """
        number = group if isinstance(group, int) else self.groups.index(group)
        return min(position for position, _ in self._of_group[number])

    def depth(self, keep: Tensor) -> int:
        """Position of the first node that a mask ``(groups,)`` changes; the output when it keeps all."""
        cut = (keep == 0).nonzero().flatten().tolist()
        return min((self.first_site_depth(number) for number in cut), default=self.program.stop)

    def __call__(self, x: Tensor, keep: Tensor) -> Tensor:
        """See ``forward``."""
        return self.forward(x, keep)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        """Output of the masked model.

        Args:
            x: Model input ``(N, ...)``.
            keep: ``(groups,)``: bool, or float in 0..1, differentiable (then each reader sees ``keep * value``).
                ``(N, groups)``: one mask a sample.

        Returns:
            Model output ``(N, classes)``.
        """
        before, after = self._changes(x, keep, 0)
        out: Tensor = self.program.run(x, before=before, after=after)
        return out

    def prefix(self, x: Tensor, depth: int, keep: Tensor | None = None) -> Cache:
        """Evaluate once what lies before a cut.

        Args:
            x: Model input ``(N, ...)``.
            depth: Wanted cut, such as ``first_site_depth`` of the earliest group still to be decided. The cut taken is
                the last one at or before it where every live value has a batch axis of its own.
            keep: Mask already decided, ``(groups,)``; by default nothing is pruned.
        """
        keep = torch.ones(len(self.groups)) if keep is None else keep
        entries = self._shape_record(x)
        cut = min(depth, self.program.stop)
        while any(_merged(entries[p]) for p in self.program.live(cut)):
            cut -= 1
        before, after = self._changes(x, keep, 0)
        held = self.program.run(x, stop=cut, before=before, after=after)
        return Cache(cut, held, len(x), (keep != 0).cpu(), {p: entries[p] for p in held})

    def run_from(self, cache: Cache, keep: Tensor) -> Tensor:
        """Resume from a cache.

        Args:
            cache: From ``prefix``, whole or a subset.
            keep: ``(groups,)`` zeros and ones. Must agree with the cache's mask on groups that act before the cut.

        Raises:
            InputError: the mask differs from the cached one before the cut.
        """
        host = (keep != 0).cpu()
        early = [g for g in (host != cache.keep).nonzero().flatten().tolist() if self.first_site_depth(g) < cache.depth]
        if early:
            raise InputError(
                f"group {early[0]} acts at node {self.first_site_depth(early[0])}, before the cut at {cache.depth}",
                field="keep",
                fix="make the prefix with this mask, or cut earlier",
            )
        reference = next(v for v in cache.values.values() if isinstance(v, Tensor))
        before, after = self._changes(reference, keep, cache.depth)
        out: Tensor = self.program.run(None, start=cache.depth, values=cache.values, before=before, after=after)
        return out

    def _shape_record(self, x: Tensor) -> list[Entry]:
        return known_shapes(self.graph, tuple(x.shape[1:]))

    def _changes(self, x: Tensor, keep: Tensor, start: int) -> tuple[dict[int, Before], dict[int, After]]:
        if keep.shape[-1] != len(self.groups):
            raise InputError(f"the mask has {keep.shape[-1]} entries for {len(self.groups)} groups", field="keep")
        before: dict[int, Before] = {}
        after: dict[int, After] = {}
        if (
            keep.dim() == 2
            or keep.requires_grad
            or (keep.is_floating_point() and bool(((keep != 0) & (keep != 1)).any()))
        ):
            self._soft(x, keep, before, after)
            return before, after
        cut = (keep == 0).nonzero().flatten().tolist()
        device, dtype = x.device, next((p.dtype for p in self.graph.parameters()), torch.float32)
        moved = keep.to(device=device, dtype=dtype)
        for key in sorted({key for number in cut for key in self._of_group[number]}):
            place = self._places[key]
            if place.folds:
                before[place.position] = _fold(place, moved)
            elif place.position >= start:
                after[place.position] = _multiply(place, moved)
        return before, after

    def _soft(self, x: Tensor, keep: Tensor, before: dict[int, Before], after: dict[int, After]) -> None:
        """Multiply on the way into each reader, so that a mask counts once however often a value is passed on.

        A branch is multiplied where it is made: everything that takes it is a reader.
        """
        entries = self._shape_record(x) if keep.dim() == 2 else None
        device, dtype = x.device, next((p.dtype for p in self.graph.parameters()), torch.float32)
        moved = keep.to(device=device, dtype=dtype)
        for key, place in self._sites.items():
            axis = None
            if entries is not None:
                entry = entries[place.position]
                if not isinstance(entry, Spec) or entry.batch in (None, -1):
                    raise ModelUnsupported(
                        "one mask a sample needs a batch axis at every site",
                        field=self.program.nodes[place.position].name,
                        fix="evaluate one mask after the other",
                    )
                axis = entry.batch
            if all(self.groups[number].kind == BRANCH for number, _ in place.groups):
                after[place.position] = _multiply(place, moved, axis)
                continue
            for reader in self._edges[key]:
                inner = before.get(reader)
                before[reader] = _into(self.program, reader, place, moved, axis, inner)


def _merged(entry: Entry) -> bool:
    if isinstance(entry, tuple):
        return any(map(_merged, entry))
    return isinstance(entry, Spec) and entry.batch == -1


def _shaped(vector: Tensor, value: Tensor, dim: int, batch: int | None = None) -> Tensor:
    sizes = [1] * value.dim()
    sizes[dim] = value.shape[dim]
    if batch is None:
        return vector.reshape(sizes)
    sizes[batch] = value.shape[batch]
    return (vector if batch < dim else vector.T).reshape(sizes)


def _multiply(place: _Place, keep: Tensor, batch: int | None = None) -> After:
    return lambda value: value * _shaped(place.vector(keep, value.shape[place.dim]), value, place.dim, batch)


def _fold(place: _Place, keep: Tensor) -> Before:
    def change(args: list[Any]) -> list[Any]:
        vector = place.vector(keep, len(args[1]))
        return [args[0], args[1] * vector, args[2] * vector, *args[3:]]

    return change


def _into(
    program: Program, reader: int, place: _Place, keep: Tensor, batch: int | None, inner: Before | None
) -> Before:
    source = program.nodes[place.position]
    takes = [i for i, a in enumerate(program.nodes[reader].args) if a is source]

    def change(args: list[Any]) -> list[Any]:
        args = args if inner is None else inner(args)
        for i in takes:
            args[i] = args[i] * _shaped(place.vector(keep, args[i].shape[place.dim]), args[i], place.dim, batch)
        return args

    return change
