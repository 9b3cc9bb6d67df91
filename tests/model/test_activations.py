from __future__ import annotations

import numpy as np
import pytest
import torch

from modelmend.errors import InputError, SamplesError
from modelmend.metrics import sample_passes
from modelmend.model.activations import QUANTILES, collect, sites_of
from modelmend.model.classifier import Classifier
from modelmend.model.sketch import QuantileSketch
from modelmend.records import Preprocessing

from .graphs import graph_of, groups_of
from .zoo import ZOO

STATISTICS = ("mean", "var", "max_mean", "max_var", "silent", "class_mean", "class_max")


def case(name, n=13):
    graph, x = graph_of(name), ZOO[name].inputs(n)
    classes = graph(x[:1]).shape[1]
    return Classifier(graph, Preprocessing(kind="raw"), classes), x, torch.arange(n) % (classes - 1)


def test_statistics_by_definition():
    classifier, x, y = case("resnet8")
    node = sites_of(groups_of("resnet8"))[2].node
    seen = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    with torch.no_grad():
        Watch(classifier.graph).run(x)
    found = collect(classifier, x, y, [node], 4, sketch=True, full=True)
    site, value = found.sites[node], seen[node]
    mean, peak = value.mean((2, 3)), value.amax((2, 3))
    close = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(site.mean, mean.mean(0), **close)
    torch.testing.assert_close(site.var, mean.var(0, correction=0), **close)
    torch.testing.assert_close(site.max_mean, peak.mean(0), **close)
    torch.testing.assert_close(site.max_var, peak.var(0, correction=0), **close)
    torch.testing.assert_close(site.silent, (peak <= 0).float().mean(0), **close)
    torch.testing.assert_close(site.class_mean[2], mean[y == 2].mean(0), **close)
    torch.testing.assert_close(site.class_max[1], peak[y == 1].mean(0), **close)
    assert site.class_mean[4].isnan().all()
    torch.testing.assert_close(site.full_mean, value.mean(0), **close)
    torch.testing.assert_close(site.full_var, value.var(0, correction=0), **close)
    assert found.count == 13 and found.class_count.tolist() == [4, 3, 3, 3, 0]


@pytest.mark.parametrize(
    "name", ["mobilenet_v3", "densenet", "vit_mha", "vit_tiny", "swin", "signal", "text", "mlp", "convnext"]
)
def test_batches_do_not_matter_and_every_sample_counts_for_itself(name):
    """Batches of one cannot mix samples up, so they are the reference."""
    classifier, x, y = case(name)
    sites = sites_of(groups_of(name))
    found, one = collect(classifier, x, y, sites, 5), collect(classifier, x, y, sites, 1)
    for node, site in found.sites.items():
        for key in STATISTICS:
            torch.testing.assert_close(
                getattr(site, key), getattr(one.sites[node], key), rtol=1e-3, atol=1e-5, equal_nan=True
            )


@pytest.mark.parametrize("name", ["resnet8", "vgg_small", "vit_tiny", "text", "signal"])
def test_the_channel_axis_of_a_named_node_is_found(name):
    classifier, x, y = case(name)
    sites = sites_of(groups_of(name))
    by_site, by_name = collect(classifier, x, y, sites), collect(classifier, x, y, [s.node for s in sites])
    for node, site in by_site.sites.items():
        torch.testing.assert_close(site.mean, by_name.sites[node].mean)


def test_groups_get_one_number_each():
    classifier, x, y = case("shufflenet")
    groups = groups_of("shufflenet")
    found = collect(classifier, x, y, sites_of(groups), sketch=True)
    view = found.for_groups(groups)
    assert view.mean.shape == (len(groups),)
    assert view.class_mean.shape == (5, len(groups)) and view.quantiles.shape == (len(QUANTILES), len(groups))
    site = groups[7].sites[0]
    assert view.mean[7] == pytest.approx(float(found.sites[site.node].mean[list(site.channels)].mean()))


def test_flat_tensors_name_node_and_statistic():
    classifier, x, y = case("mlp")
    node = groups_of("mlp")[0].sites[0].node
    assert set(collect(classifier, x, y, [node]).tensors()) == {f"{node}/{k}" for k in STATISTICS} | {"class_count"}


def test_passes_are_counted():
    classifier, x, y = case("mlp")
    before = sample_passes()
    collect(classifier, x, y, [groups_of("mlp")[0].sites[0]])
    assert sample_passes() - before == len(x)


def test_wrong_requests_are_named():
    classifier, x, y = case("mlp")
    with pytest.raises(InputError, match="no node 'nowhere'"):
        collect(classifier, x, y, ["nowhere"])
    with pytest.raises(SamplesError):
        collect(classifier, x[:0], y[:0], [groups_of("mlp")[0].sites[0]])
    with pytest.raises(InputError, match="no statistics"):
        collect(classifier, x, y, [groups_of("mlp")[0].sites[0]]).for_groups(groups_of("mlp"))


@pytest.mark.parametrize("order", ["shuffled", "sorted"])
def test_sketched_quantiles_are_within_the_stated_rank_error(order):
    n, size = 20_000, 128
    rows = torch.randn(n, 3, generator=torch.Generator().manual_seed(0)).exp()
    rows = rows.sort(0).values if order == "sorted" else rows
    sketch = QuantileSketch(3, size)
    for part in rows.split(777):
        sketch.add(part)
    wanted = torch.tensor([0.01, 0.25, 0.5, 0.9, 0.99])
    found = sketch.quantiles(wanted)
    ranks = (rows[None] < found[:, None]).float().mean(1)
    assert (ranks - wanted[:, None]).abs().max() <= np.log2(n / size) / (2 * size)


def test_a_sketch_of_few_samples_is_exact():
    rows = torch.randn(101, 2, generator=torch.Generator().manual_seed(0))
    sketch = QuantileSketch(2)
    sketch.add(rows)
    torch.testing.assert_close(sketch.quantiles(torch.tensor([0.5])), rows.median(0).values[None], rtol=1e-5, atol=1e-6)


def test_the_memory_of_a_sketch_does_not_follow_the_stream():
    sketch = QuantileSketch(2, 16)
    held = []
    for _ in range(12):
        for _ in range(20):
            sketch.add(torch.rand(64, 2))
        held.append(sum(level.numel() for level in sketch._levels if level is not None))
    assert sketch.count == 15360
    assert max(held) <= 2 * 16 * 11
