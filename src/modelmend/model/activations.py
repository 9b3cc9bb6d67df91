"""Statistics of activations, streamed: per sample and channel the spatial mean and maximum, then moments over samples.

Memory holds one batch of summaries and the statistics, however many samples there are.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modelmend.errors import InputError, SamplesError
from modelmend.metrics import count_passes
from modelmend.model.classifier import Classifier
from modelmend.model.execute import After, Program
from modelmend.model.groups import Group, Site
from modelmend.model.shapes import Spec, known_shapes
from modelmend.model.sketch import QuantileSketch
from modelmend.model.statistics import QUANTILES, Activations, GroupActivations, SiteStatistics
from modelmend.model.taps import Moments, Tap, channel_axis

__all__ = ["QUANTILES", "Activations", "GroupActivations", "SiteStatistics", "collect", "sites_of"]


def sites_of(groups: Sequence[Group]) -> list[Site]:
    """The sites of groups, each node once, in the order of first mention."""
    return list({site.node: site for group in groups for site in group.sites}.values())


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
    moments, sketches = Moments(), None
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


def _taps(classifier: Classifier, program: Program, nodes: Sequence[str | Site], x: Tensor, full: bool) -> list[Tap]:
    wanted = {n if isinstance(n, str) else n.node: None if isinstance(n, str) else n.dim for n in nodes}
    unknown = [name for name in wanted if name not in program.by_name]
    if unknown or not wanted:
        raise InputError(
            f"no node {unknown[0]!r} in the graph" if unknown else "no nodes to collect from",
            field="nodes",
            fix="take names from graph.graph.nodes or sites from find_groups",
        )
    entries, taps = known_shapes(classifier.graph, tuple(x.shape[1:])), []
    for name, dim in wanted.items():
        node, spec = program.nodes[program.by_name[name]], entries[program.by_name[name]]
        if not isinstance(spec, Spec) or len(spec.shape) < 2:
            raise InputError("this node holds no channels", field=name, fix="collect another node")
        taps.append(Tap(node, channel_axis(node, len(spec.shape)) if dim is None else dim, spec, full))
    if any(tap.merged for tap in taps):
        _order(classifier, program, [tap for tap in taps if tap.merged], x)
    return taps


def _order(classifier: Classifier, program: Program, taps: list[Tap], x: Tensor) -> None:
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


def _watch(tap: Tap, n: int) -> After:
    def after(value: Tensor) -> Tensor:
        tap(value, n)
        return value

    return after


def _finish(
    taps: list[Tap],
    moments: Moments,
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
