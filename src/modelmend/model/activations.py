"""Statistics of activations, streamed: per sample and channel the spatial mean and maximum, then moments over samples.

Memory holds one batch of summaries and the statistics, however many samples there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from modelmend.errors import InputError, SamplesError
from modelmend.metrics import count_passes
from modelmend.model.classifier import Classifier
from modelmend.model.execute import After, Program
from modelmend.model.groups import Group, Site
from modelmend.model.propagate import base_name
from modelmend.model.shapes import Spec, propagate_shapes
from modelmend.model.sketch import QuantileSketch

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Probabilities at which the sketch is read."""


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics of the ``C`` channels of one node over the samples; float32 on the CPU.

    Attributes:
        mean: ``(C,)`` mean of the spatial mean.
        var: ``(C,)`` variance of the spatial mean (population).
        max_mean: ``(C,)`` mean of the spatial maximum.
        max_var: ``(C,)`` variance of the spatial maximum.
        silent: ``(C,)`` share of samples whose spatial maximum is not above 0 (dead behind a ReLU).
        class_mean: ``(classes, C)`` mean of the spatial mean of each class; NaN for classes without samples.
        class_max: ``(classes, C)`` mean of the spatial maximum of each class.
        quantiles: ``(Q, C)`` of the spatial mean at ``QUANTILES``, with ``sketch``.
        max_quantiles: ``(Q, C)`` of the spatial maximum, with ``sketch``.
        full_mean: Mean of every element ``(C, *spatial)``, with ``full``.
        full_var: Variance of every element ``(C, *spatial)``, with ``full``.
    """

    mean: Tensor
    var: Tensor
    max_mean: Tensor
    max_var: Tensor
    silent: Tensor
    class_mean: Tensor
    class_max: Tensor
    quantiles: Tensor | None = None
    max_quantiles: Tensor | None = None
    full_mean: Tensor | None = None
    full_var: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Activations:
    """Statistics of several nodes.

    Attributes:
        sites: Node name -> its statistics.
        count: Samples seen.
        class_count: ``(classes,)`` samples of each class.
    """

    sites: dict[str, SiteStatistics]
    count: int
    class_count: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Everything as flat tensors ``<node>/<statistic>``, and ``class_count``."""
        flat = {f"{node}/{key}": value for node, site in self.sites.items() for key, value in site.tensors().items()}
        return flat | {"class_count": self.class_count}

    def for_groups(self, groups: Sequence[Group]) -> GroupActivations:
        """One number a group: its channels averaged at the first site that was collected.

        Args:
            groups: Of the same graph.

        Raises:
            InputError: none of a group's sites was collected.
        """
        return GroupActivations.of(self, groups)


@dataclass(frozen=True)
class GroupActivations:
    """Statistics by group (see ``SiteStatistics``): ``(G,)``, class means ``(classes, G)``, quantiles ``(Q, G)``."""

    mean: Tensor
    var: Tensor
    max_mean: Tensor
    max_var: Tensor
    silent: Tensor
    class_mean: Tensor
    class_max: Tensor
    quantiles: Tensor | None = None
    max_quantiles: Tensor | None = None

    @classmethod
    def of(cls, found: Activations, groups: Sequence[Group]) -> GroupActivations:
        """See ``Activations.for_groups``."""
        picked = []
        for group in groups:
            site = next((s for s in group.sites if s.node in found.sites), None)
            if site is None:
                raise InputError(
                    f"no statistics of group {group.index} ({group.layer})",
                    field="sites",
                    fix="collect the groups' sites",
                )
            picked.append((found.sites[site.node], list(site.channels)))
        columns: dict[str, Tensor] = {}
        for name in cls.__dataclass_fields__:
            rows = [(getattr(statistics, name), channels) for statistics, channels in picked]
            if rows and all(value is not None for value, _ in rows):
                columns[name] = torch.stack([value[..., channels].mean(-1) for value, channels in rows], -1)
            elif not rows and name not in ("quantiles", "max_quantiles"):
                columns[name] = torch.empty(0)
        return cls(**columns)


def sites_of(groups: Sequence[Group]) -> list[Site]:
    """The sites of groups, each node once, in the order of first mention."""
    return list({site.node: site for group in groups for site in group.sites}.values())


class _Moments:
    """Mean and variance of columns over a stream, merged batch by batch (Chan, Golub, LeVeque 1979), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean, self.squares = torch.zeros(()), torch.zeros(())

    def add(self, rows: Tensor) -> None:
        """Take samples ``(N, ...)``."""
        n = len(rows)
        mean = rows.mean(0)
        mean, squares = mean.double(), (rows - mean).square_().sum(0).double()
        if not self.count:
            self.count, self.mean, self.squares = n, mean, squares
            return
        total = self.count + n
        apart = mean - self.mean
        self.mean = self.mean + apart * (n / total)
        self.squares = self.squares + squares + apart.square() * (self.count * n / total)
        self.count = total


class _Tap:
    """Summaries of one node in each batch.

    Args:
        node: Whose value is watched.
        dim: Channel axis.
        spec: Shape record, with the batch axis.
        full: Gather moments of every element.
    """

    def __init__(self, node: Node, dim: int, spec: Spec, full: bool) -> None:
        self.node, self.dim, self.channels = node, dim, spec.shape[dim]
        self.merged, self.inner = spec.batch == -1, False
        axis = spec.merged if self.merged else spec.batch
        if axis is None or axis == dim:
            raise InputError("this value has no axis of samples", field=node.name, fix="collect another node")
        self.axis: int = axis
        self.mean = self.peak = torch.empty(0)
        self.full = _Moments() if full else None

    def order(self, mixed: Tensor, same: Tensor, n: int) -> None:
        """Find how samples lie in a merged axis.

        Args:
            mixed: The value of ``n`` different samples.
            same: The value of ``n`` copies of the first: equal where elements belong to the first.
            n: Samples.
        """
        equal = mixed == same
        for inner in (False, True):
            self.inner = inner
            rows = self.grid(equal, n)
            if bool(rows[0].all()) and not bool(rows[1:].all()):
                return
        self.inner = False

    def grid(self, value: Tensor, n: int) -> Tensor:
        """The value as ``(n, channels, ...)``, a view."""
        sample, dim = self.axis, self.dim
        if self.merged:
            parts = (value.shape[sample] // n, n) if self.inner else (n, value.shape[sample] // n)
            value = value.reshape(*value.shape[:sample], *parts, *value.shape[sample + 1 :])
            dim += int(dim > sample)
            sample += int(self.inner)
        return value.movedim((sample, dim), (0, 1))

    def __call__(self, value: Tensor, n: int) -> None:
        """Summarise the value of ``n`` samples."""
        rows = self.grid(value, n)
        if rows.dim() == 2:
            self.mean = self.peak = rows
        else:
            mean = peak = rows.flatten(2) if rows.is_contiguous() else rows
            # One axis after the other, the widest stride first: reducing several strided axes at once is far slower.
            left = sorted(range(2, mean.dim()), key=mean.stride, reverse=True)
            while left:
                axis = left.pop(0)
                mean, peak = mean.mean(axis), peak.amax(axis)
                left = [d - int(d > axis) for d in left]
            self.mean, self.peak = mean, peak
        if self.full is not None:
            self.full.add(rows)


_LAST = frozenset(("linear", "layer_norm", "native_layer_norm", "rms_norm", "embedding", "addmm", "mm"))
_FIRST = frozenset(("batch_norm", "group_norm", "instance_norm", "convolution", "scaled_dot_product_attention"))


def _channel_axis(node: Node, rank: int) -> int:
    """The channel axis by the nearest operator with channels on the way back; axis 1 for images."""
    seen: Node | None = node
    while isinstance(seen, Node) and seen.op == "call_function":
        name = base_name(seen)
        if name in _LAST:
            return rank - 1
        if name in _FIRST or name.startswith("conv"):
            return 1
        if name in ("permute", "transpose", "view", "reshape", "flatten"):
            break
        seen = next(iter(seen.all_input_nodes), None)
    return rank - 1 if rank in (2, 3) else 1


@torch.no_grad()
def collect(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    nodes: Sequence[str | Site],
    batch_size: int = 64,
    *,
    sketch: bool = False,
    full: bool = False,
) -> Activations:
    """Run the samples once and gather statistics at nodes.

    Args:
        classifier: The model; passes are counted.
        x: Samples ``(N, ...)`` as stored, 0..1 for images.
        y: Classes ``(N,)``.
        nodes: Node names or sites (a site names its channel axis; for a name it is found out).
        batch_size: Samples at a time.
        sketch: Quantiles over the samples as well.
        full: Moments of every element as well: two more passes over each activation and, held in float64, 16 bytes an
            element of one sample's activations at the nodes.

    Raises:
        SamplesError: there are no samples.
        InputError: a node does not exist or holds no channels.
    """
    if not len(x):
        raise SamplesError(
            "there are no samples to collect activations from", field="x", fix="give at least one sample"
        )
    program = Program(classifier.graph)
    taps = _taps(classifier, program, nodes, x, full)
    classes = classifier.num_classes
    moments, sketches = _Moments(), None
    silent = class_sum = torch.zeros(())
    class_count = torch.zeros(classes)
    for xs, ys in zip(x.split(batch_size), y.split(batch_size), strict=True):  # type: ignore[no-untyped-call]
        n = len(xs)
        count_passes(n)
        after: dict[int, After] = {program.position[t.node]: _watch(t, n) for t in taps}
        program.run(classifier.model_input(xs), after=after)
        rows = torch.cat([t.mean for t in taps] + [t.peak for t in taps], 1).float()
        width = rows.shape[1] // 2
        moments.add(rows)
        silent = silent + (rows[:, width:] <= 0).sum(0)
        sums = torch.zeros(classes, 2 * width, device=rows.device).index_add_(0, ys.to(rows.device), rows)
        class_sum = class_sum + sums.double()
        class_count += torch.bincount(ys.cpu(), minlength=classes)
        if sketch:
            sketches = sketches or QuantileSketch(2 * width)
            sketches.add(rows)
    return _finish(taps, moments, silent, class_sum, class_count, sketches)


def _taps(classifier: Classifier, program: Program, nodes: Sequence[str | Site], x: Tensor, full: bool) -> list[_Tap]:
    wanted = {n if isinstance(n, str) else n.node: None if isinstance(n, str) else n.dim for n in nodes}
    unknown = [name for name in wanted if name not in program.by_name]
    if unknown or not wanted:
        raise InputError(
            f"no node {unknown[0]!r} in the graph" if unknown else "no nodes to collect from",
            field="nodes",
            fix="take names from graph.graph.nodes or sites from find_groups",
        )
    entries, taps = propagate_shapes(classifier.graph, tuple(x.shape[1:])), []
    for name, dim in wanted.items():
        node = program.nodes[program.by_name[name]]
        spec = entries[node]
        if not isinstance(spec, Spec) or len(spec.shape) < 2:
            raise InputError("this node holds no channels", field=name, fix="collect another node")
        taps.append(_Tap(node, _channel_axis(node, len(spec.shape)) if dim is None else dim, spec, full))
    if any(tap.merged for tap in taps):
        _order(classifier, program, [tap for tap in taps if tap.merged], x)
    return taps


def _order(classifier: Classifier, program: Program, taps: list[_Tap], x: Tensor) -> None:
    """Two runs over a few samples tell how they lie in merged axes."""
    n = min(3, len(x))
    runs: list[dict[int, Tensor]] = []
    for batch in (x[:n], x[:1].expand(n, *x.shape[1:])):
        held: dict[int, Tensor] = {}
        after = {program.position[t.node]: _keep(held, program.position[t.node]) for t in taps}
        program.run(classifier.model_input(batch), after=after)
        count_passes(n)
        runs.append(held)
    for tap in taps:
        position = program.position[tap.node]
        tap.order(runs[0][position], runs[1][position], n)


def _keep(held: dict[int, Tensor], position: int) -> After:
    def after(value: Tensor) -> Tensor:
        held[position] = value
        return value

    return after


def _watch(tap: _Tap, n: int) -> After:
    def after(value: Tensor) -> Tensor:
        tap(value, n)
        return value

    return after


def _finish(
    taps: list[_Tap],
    moments: _Moments,
    silent: Tensor,
    class_sum: Tensor,
    class_count: Tensor,
    sketches: QuantileSketch | None,
) -> Activations:
    """Cut the columns back into nodes."""
    count, width = moments.count, len(moments.mean) // 2
    mean, var = moments.mean.float().cpu(), (moments.squares / count).float().cpu()
    share = (silent / count).float().cpu()
    by_class = (class_sum.cpu() / class_count[:, None]).float()
    found = None if sketches is None else sketches.quantiles(torch.tensor(QUANTILES)).cpu()
    sites, start = {}, 0
    for tap in taps:
        at, peak = slice(start, start + tap.channels), slice(width + start, width + start + tap.channels)
        start += tap.channels
        sites[tap.node.name] = SiteStatistics(
            mean=mean[at],
            var=var[at],
            max_mean=mean[peak],
            max_var=var[peak],
            silent=share[at],
            class_mean=by_class[:, at],
            class_max=by_class[:, peak],
            quantiles=None if found is None else found[:, at],
            max_quantiles=None if found is None else found[:, peak],
            full_mean=None if tap.full is None else tap.full.mean.float().cpu(),
            full_var=None if tap.full is None else (tap.full.squares / count).float().cpu(),
        )
    return Activations(sites, count, class_count)
