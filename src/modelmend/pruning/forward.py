"""Many masks, one network: a forward pass that computes whatever masks have in common only once.

Order the network at the places where groups are read (*stops*); between two stops lies a *segment*. What a segment
computes depends only on which groups are cut at the stops before it. So its result is kept under that pattern, and
every later mask that begins the same way starts from there: masks walk down a prefix tree of the network. The branch
that has cut nothing is computed once, at the beginning; the others are kept while memory lasts, the least recently
used leave first.

Nothing is approximated: the logits are those of the network with the groups' weights set to zero, up to rounding (an
eval-mode batch norm is folded into the convolution before it).
"""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from modelmend.metrics import count_passes
from modelmend.model.classifier import Classifier
from modelmend.model.groups import Group

aten = torch.ops.aten
_SIZES = (aten.sym_size.int,)
_CONVOLUTIONS = (aten.conv2d.default, aten.convolution.default, aten.conv1d.default)
_NORMS = (
    aten.batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.cudnn_batch_norm.default,
)
Values = dict[Node, Any]
"""What later segments need: a tensor, or a tuple of tensors, a node."""
MEMORY = 1 << 30
"""Bytes that the kept branches of one network may take."""


@dataclass(frozen=True)
class Operation:
    """One computed node; arguments may hold nodes, constants are resolved."""

    node: Node
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass
class Segment:
    """Operations up to and including a stop, and the values that later segments need.

    Attributes:
        operations: In order.
        stop: The node that is masked after this segment; ``None`` at the output.
        dim: Axis of the stop's value that holds channels.
        channel_group: Group of each channel there, -1 for none, ``(C,)``.
        groups: The groups that appear there, ``(g,)``.
        live: Nodes to keep after the segment, the stop among them.
        share: Share of the network's multiply-adds, 0..1.
    """

    operations: list[Operation]
    stop: Node | None = None
    dim: int = 1
    channel_group: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    groups: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    live: tuple[Node, ...] = ()
    share: float = 0.0


class MaskedForward:
    """The network with a mask over its groups, on a fixed set of samples.

    Args:
        classifier: The network; its weights are read, never written.
        groups: All prunable groups, ``G`` of them, in index order.
        x: Samples ``(N, ...)`` in 0..1.
        chunk: Samples a chunk; one chunk is what racing judges first.
        memory: Bytes that kept branches may take.
    """

    def __init__(
        self, classifier: Classifier, groups: Sequence[Group], x: Tensor, *, chunk: int = 64, memory: int = MEMORY
    ) -> None:
        self.classifier = classifier
        self.count = len(groups)
        self.memory = memory
        self.chunks: list[Tensor] = list(torch.split(classifier.model_input(x), chunk))
        self.segments = _segments(classifier.graph, groups, self.chunks[0][:2])
        self._input = next(n for n in classifier.graph.graph.nodes if n.op == "placeholder")
        self._trunk = [self._uncut(part) for part in self.chunks]
        self._branches: OrderedDict[tuple[int, int, bytes], Values] = OrderedDict()
        self._bytes = 0

    @torch.no_grad()
    def _uncut(self, part: Tensor) -> list[Values]:
        """Values of the uncut network after each segment (shared tensors, no copies)."""
        count_passes(len(part))
        values: Values = {self._input: part}
        kept = []
        for segment in self.segments:
            values = _run(segment, values, len(part))
            kept.append(values)
        return kept

    def clean_logits(self, chunk: int) -> Tensor:
        """Logits ``(n, classes)`` of the uncut network on one chunk."""
        return self._logits(self._trunk[chunk][-1])

    def _logits(self, values: Values) -> Tensor:
        (output,) = values.values()
        return self.classifier.logits(output)

    def stop_values(self, chunk: int) -> Iterator[tuple[Segment, Tensor]]:
        """Every stop with the uncut network's value there."""
        for segment, kept in zip(self.segments, self._trunk[chunk], strict=True):
            if segment.stop is not None:
                yield segment, kept[segment.stop]

    @torch.no_grad()
    def logits(self, keep: Tensor, chunk: int) -> Tensor:
        """Logits of ``M`` masks on one chunk.

        Args:
            keep: Bool ``(M, G)``; False cuts the group.
            chunk: Index into ``chunks``.

        Returns:
            ``(M, n, classes)``, float32.
        """
        if not len(keep):
            return self.clean_logits(chunk)[None][:0]
        cut = ~keep.cpu()
        patterns = [[cut[i, s.groups].numpy().tobytes() for s in self.segments[:-1]] for i in range(len(cut))]
        out: list[Tensor] = [torch.empty(0)] * len(keep)
        for i in sorted(range(len(keep)), key=patterns.__getitem__):
            out[i] = self._logits(self._after(len(self.segments) - 1, cut[i], patterns[i], chunk))
        return torch.stack(out)

    def _after(self, k: int, cut: Tensor, pattern: list[bytes], chunk: int) -> Values:
        """Values after segment ``k`` for a mask; computed only if no mask that begins like it has left them behind."""
        if not any(map(any, pattern[:k])):
            return self._trunk[chunk][k]
        key = (k, chunk, b"|".join(pattern[:k]))
        found = self._branches.get(key)
        if found is not None:
            self._branches.move_to_end(key)
            return found
        values, segment = self._after(k - 1, cut, pattern, chunk), self.segments[k - 1]
        if any(pattern[k - 1]):
            assert segment.stop is not None
            values = {**values, segment.stop: _without(values[segment.stop], segment, cut)}
        n = len(self.chunks[chunk])
        count_passes(n * self.segments[k].share)  # type: ignore[arg-type]
        values = _run(self.segments[k], values, n)
        if k < len(self.segments) - 1:
            self._remember(key, values)
        return values

    def _remember(self, key: tuple[int, int, bytes], values: Values) -> None:
        self._branches[key] = values
        self._bytes += _size(values)
        while self._bytes > self.memory and len(self._branches) > 1:
            self._bytes -= _size(self._branches.popitem(last=False)[1])


def _size(values: Values) -> int:
    """Bytes of all tensors."""
    tensors = (t for v in values.values() for t in (v if isinstance(v, (tuple, list)) else (v,)))
    return sum(t.numel() * t.element_size() for t in tensors)


def _without(value: Tensor, segment: Segment, cut: Tensor) -> Tensor:
    """A copy of the stop's value with the cut groups' channels at zero."""
    owner = segment.channel_group
    channels = ((owner >= 0) & cut[owner]).nonzero().flatten()
    return value.index_fill(segment.dim, channels.to(value.device), 0)


def _run(segment: Segment, values: Values, rows: int) -> Values:
    """Compute a segment on ``rows`` rows; returns the values that are still needed."""
    env: dict[Node, Any] = dict(values)
    known = env.get

    def value(node: Node) -> Any:
        found = known(node)
        return _scalar(node, rows) if found is None else found

    for op in segment.operations:
        env[op.node] = op.target(*map_arg(op.args, value), **map_arg(op.kwargs, value))
    return {node: env[node] for node in segment.live}


def _scalar(node: Node, rows: int) -> Any:
    """A size or arithmetic on sizes, for a batch of ``rows``."""
    if node.target in _SIZES:
        return rows  # sizes of other axes are constants, see _operations
    return node.target(*map_arg(node.args, lambda n: _scalar(n, rows)))  # type: ignore[operator]


def _segments(graph: GraphModule, groups: Sequence[Group], probe: Tensor) -> list[Segment]:
    """Cut the graph at the nodes where groups are read; ``probe``: two samples that tell shapes and scalars apart."""
    names = {site.node for group in groups for site in group.sites}
    operations, scalars, shapes, output = _operations(graph, probe, names)
    order = {op.node: i for i, op in enumerate(operations)}
    by_name = {op.node.name: op.node for op in operations}
    stops: dict[Node, tuple[int, Tensor]] = {}
    for group in groups:
        for site in group.sites:
            node = by_name[site.node]
            if node not in stops:
                stops[node] = (site.dim, torch.full((shapes[node][site.dim],), -1))
            stops[node][1][list(site.channels)] = group.index
    ordered = sorted(stops, key=order.__getitem__)
    last_use = _last_use(operations, scalars, order, output)
    bounds = [order[n] + 1 for n in ordered] + [len(operations)]
    placeholder = next(n for n in graph.graph.nodes if n.op == "placeholder")
    segments, start = [], 0
    for i, end in enumerate(bounds):
        stop = ordered[i] if i < len(ordered) else None
        upto = [placeholder, *(op.node for op in operations[:end])]
        live = (output,) if stop is None else tuple(n for n in upto if last_use.get(n, -1) >= end)
        if stop is None:
            segments.append(Segment(operations[start:end], live=live))
        else:
            dim, channels = stops[stop]
            used = torch.unique(channels[channels >= 0])
            segments.append(Segment(operations[start:end], stop, dim, channels, used, live))
        start = end
    work = [sum(_work(op, shapes) for op in s.operations) for s in segments]
    for segment, amount in zip(segments, work, strict=True):
        segment.share = amount / max(sum(work), 1)
    return segments


def _last_use(operations: list[Operation], scalars: set[Node], order: dict[Node, int], output: Node) -> dict[Node, int]:
    """Index of the last operation that reads each node."""
    last: dict[Node, int] = {output: len(operations) + 1}
    for i, op in enumerate(operations):

        def mark(node: Node, i: int = i) -> Node:
            if node not in scalars:
                last[node] = max(last.get(node, -1), i)
            return node

        map_arg((op.args, op.kwargs), mark)
    return last


def _work(op: Operation, shapes: dict[Node, torch.Size]) -> float:
    """Multiply-adds of one sample (element-wise operators: one an element)."""
    shape = shapes.get(op.node)
    if shape is None:
        return 0
    out = float(shape[1:].numel())
    weight = next((a for a in op.args[1:] if isinstance(a, Tensor) and a.dim() >= 2), None)
    return out * float(weight[0].numel()) if weight is not None else out


def _operations(
    graph: GraphModule, probe: Tensor, stops: set[str]
) -> tuple[list[Operation], set[Node], dict[Node, torch.Size], Node]:
    """Operations with constants resolved and batch norms folded; scalar nodes; shapes; the output node."""
    constants: dict[Node, Any] = {}
    scalars: set[Node] = set()
    shapes: dict[Node, torch.Size] = {}
    env: dict[Node, Any] = {}
    raw: list[Operation] = []
    output: Node | None = None
    with torch.no_grad():
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                env[node] = probe
                shapes[node] = probe.shape
            elif node.op == "get_attr":
                constants[node] = env[node] = operator.attrgetter(str(node.target))(graph).detach()
            elif node.op == "output":
                output = node.args[0][0] if isinstance(node.args[0], (tuple, list)) else node.args[0]
            else:
                env[node] = node.target(*map_arg(node.args, env.__getitem__), **map_arg(node.kwargs, env.__getitem__))
                if isinstance(env[node], Tensor):
                    shapes[node] = env[node].shape
                elif not isinstance(env[node], (tuple, list)):
                    scalars.add(node)
                    if node.target in _SIZES and node.args[1] != 0:
                        constants[node] = env[node]
                    continue

                def resolved(n: Node) -> Any:
                    return constants.get(n, n)

                raw.append(Operation(node, node.target, map_arg(node.args, resolved), map_arg(node.kwargs, resolved)))
    assert output is not None
    return _folded(raw, stops), scalars, shapes, output


def _folded(operations: list[Operation], stops: set[str]) -> list[Operation]:
    """Fold eval-mode batch norm into the convolution that it alone reads: ``W' = W g / s``, ``b' = (b - m) g / s + beta``."""
    by_node = {op.node: op for op in operations}
    drop: set[Node] = set()
    replaced: dict[Node, Operation] = {}
    for op in operations:
        if op.target not in _NORMS or not isinstance(op.args[0], Node):
            continue
        source = by_node.get(op.args[0])
        takers = list(op.node.users)
        tuple_out = op.target is not aten.batch_norm.default
        if source is None or source.target not in _CONVOLUTIONS or (len(source.args) > 6 and source.args[6] is True):
            continue  # not a convolution, or a transposed one
        if source.node.name in stops or (op.node.name in stops and tuple_out):
            continue
        if len(source.node.users) != 1 or (tuple_out and any(t.target is not operator.getitem for t in takers)):
            continue
        out = op.node
        if tuple_out:
            firsts = [t for t in takers if t.args[1] == 0]
            if len(firsts) != 1 or any(t.users for t in takers if t.args[1] != 0):
                continue
            out = firsts[0]
            drop.update(t for t in takers if t is not out)
            drop.add(op.node)
        gamma, beta, mean, var, eps = _norm_arguments(op)
        weight, bias = source.args[1], source.args[2] if len(source.args) > 2 else None
        scale = (gamma if gamma is not None else torch.ones_like(mean)) / (var + eps).sqrt()
        shift = ((bias if bias is not None else torch.zeros_like(mean)) - mean) * scale
        shift = shift + beta if beta is not None else shift
        folded = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        drop.add(source.node)
        replaced[out] = Operation(out, source.target, (source.args[0], folded, shift, *source.args[3:]), source.kwargs)
    return [replaced.get(op.node, op) for op in operations if op.node not in drop or op.node in replaced]


def _norm_arguments(op: Operation) -> tuple[Tensor | None, Tensor | None, Tensor, Tensor, float]:
    """Scale, shift, mean, variance and epsilon of a batch norm, by its schema."""
    names = [a.name for a in op.target._schema.arguments]  # type: ignore[attr-defined]
    given = dict(zip(names, op.args, strict=False)) | op.kwargs
    return given.get("weight"), given.get("bias"), given["running_mean"], given["running_var"], float(given["eps"])
