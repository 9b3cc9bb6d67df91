from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch

from modelmend.errors import ModelUnsupported
from modelmend.model.groups import find_groups, zero_groups
from modelmend.model.masks import Masked

from .graphs import apart, graph_of, groups_of
from .zoo import ZOO

KINDS = {
    "cnn_small": {"channel": 16 + 32 + 32},
    "resnet8": {"stream": 16 + 32 + 64, "channel": 16 + 32 + 64},
    "wrn_16_1": {"stream": 16 + 32 + 64, "channel": 2 * (16 + 32 + 64)},
    "vgg_small": {"channel": 2 * (32 + 64 + 128), "unit": 64},
    "resnext": {"channel": 8, "stream": 32, "conv group": 8},
    "densenet": {"channel": 64},
    "convnext": {"unit": 96},
    "vit_tiny": {"head": 4 * 4, "unit": 4 * 128},
    "vit_mha": {"head": 2, "unit": 32},
    "swin": {"head": 2, "unit": 16},
    "signal": {"channel": 8, "norm group": 4},
    "text": {"head": 2 * 2, "unit": 2 * 32},
    "mlp": {"unit": 32},
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_and_numbers_of_groups(name):
    assert Counter(group.kind for group in groups_of(name)) == KINDS[name]


@pytest.mark.parametrize("name", ZOO)
def test_every_group_zeroed_is_what_its_mask_gives(name):
    graph, groups, x = graph_of(name), groups_of(name), ZOO[name].inputs(2)
    masked, keep = Masked(graph, groups), torch.ones(len(groups))
    chosen = range(0, len(groups), max(1, len(groups) // 8))
    state = copy.deepcopy(graph.state_dict())
    with torch.no_grad():
        plain = graph(x)
        for index in chosen:
            zeroed = copy.deepcopy(graph)
            zero_groups(zeroed, [groups[index]])
            keep[index] = 0
            assert apart(zeroed(x), masked(x, keep)) <= 1e-5
            keep[index] = 1
        assert torch.equal(masked(x, keep), plain)
    assert all(torch.equal(value, state[key]) for key, value in graph.state_dict().items())


@pytest.mark.parametrize("name", ["resnet8", "densenet", "shufflenet", "mobilenet_v3", "signal", "vit_mha", "swin"])
def test_a_zeroed_group_is_zero_at_every_reader(name):
    graph, x = copy.deepcopy(graph_of(name)), ZOO[name].inputs(2)
    group = groups_of(name)[len(groups_of(name)) // 2]
    zero_groups(graph, [group])
    reading = {part.param: part for part in group.slices if part.role == "in" and part.zero}
    seen = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n):
            seen[n.name] = super().run_node(n)
            return seen[n.name]

    with torch.no_grad():
        Watch(graph).run(x)
    for site in group.sites:
        value = seen[site.node].movedim(site.dim, 0)[list(site.channels)]
        assert reading or not value.any()


def test_groups_are_in_the_same_order_every_time():
    graph = graph_of("mobilenet_v3")
    assert find_groups(graph, (3, 16, 16)) == find_groups(copy.deepcopy(graph), (3, 16, 16))


def test_no_two_groups_share_a_place():
    for name in ("densenet", "shufflenet", "efficientnet", "swin"):
        places = Counter((s.param, s.dim, i) for g in groups_of(name) for s in g.slices for i in s.index)
        assert max(places.values()) == 1


def test_output_classes_are_never_offered():
    heads = ("fc.weight", "head.weight", "head.1.weight")
    for name in ("resnet8", "vit_mha", "swin", "signal"):
        assert not [s for g in groups_of(name) for s in g.slices if s.param in heads and s.dim == 0]


def test_a_stream_group_zeroes_every_layer_that_adds_to_it():
    stream = next(g for g in groups_of("resnet8") if g.kind == "stream")
    zeroed = {s.param for s in stream.slices if s.zero}
    made = ("conv1", "bn1", "layers.0.conv2", "layers.0.bn2")
    assert {f"{layer}.weight" for layer in made} | {"bn1.bias", "layers.0.bn2.bias"} == zeroed


def test_batch_norm_scale_and_shift_both_go_to_zero():
    group = groups_of("cnn_small")[0]
    zeroed = {s.param for s in group.slices if s.zero}
    assert zeroed == {"conv1.weight", "bn1.weight", "bn1.bias"}


def test_depth_is_the_place_of_the_first_site():
    graph = graph_of("resnet8")
    names = [node.name for node in graph.graph.nodes]
    for group in groups_of("resnet8"):
        assert group.depth == min(names.index(site.node) for site in group.sites)


def test_a_wrong_input_shape_is_named():
    with pytest.raises(ModelUnsupported, match="shape") as error:
        find_groups(graph_of("cnn_small"), (5, 8, 8))
    assert error.value.field == "input_shape"
