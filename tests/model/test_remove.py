from __future__ import annotations

import copy

import pytest
import torch

from modelmend.errors import InputError
from modelmend.model.cost import count
from modelmend.model.groups import find_groups
from modelmend.model.masks import Masked
from modelmend.model.remove import remove_groups

from .graphs import apart, graph_of, groups_of
from .zoo import ZOO


@pytest.mark.parametrize("name", ZOO)
def test_masked_and_removed_agree_for_every_group(name):
    """Every group is in one of two cuts; a third removes all of them."""
    graph, groups, shape = graph_of(name), groups_of(name), ZOO[name].shape
    x, masked = ZOO[name].inputs(3), Masked(graph, groups)
    part = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0)) % 2
    before = count(graph, shape)
    with torch.no_grad():
        for cut in (part == 0, part == 1, part >= 0):
            small = remove_groups(graph, [g for g in groups if cut[g.index]], shape)
            wanted = masked(x, ~cut)
            assert apart(wanted, small(x)) <= 1e-4
            assert apart(graph(x), wanted) > 1e-4
    after = count(small, shape)
    assert after.parameters < before.parameters and after.macs < before.macs


@pytest.mark.parametrize("name", ["resnet8", "shufflenet", "vit_mha", "signal"])
def test_the_smaller_model_can_be_cut_again(name):
    graph, shape, x = graph_of(name), ZOO[name].shape, ZOO[name].inputs(3)
    small = remove_groups(graph, groups_of(name)[::3], shape)
    again = find_groups(small, shape)
    assert 0 < len(again) < len(groups_of(name))
    keep = torch.arange(len(again)) % 2 == 0
    with torch.no_grad():
        smaller = remove_groups(small, again[1::2], shape)
        assert apart(Masked(small, again)(x, keep), smaller(x)) <= 1e-4


def test_weights_are_cut_and_not_only_zeroed():
    shape = ZOO["cnn_small"].shape
    small = remove_groups(graph_of("cnn_small"), groups_of("cnn_small")[:4], shape)
    assert small.conv1.weight.shape[0] == 12
    assert small.conv2.weight.shape[1] == 12
    assert small.bn1.running_mean.shape == (12,)


def test_a_layer_that_would_vanish_keeps_one_channel_at_zero():
    groups = groups_of("cnn_small")
    small = remove_groups(graph_of("cnn_small"), groups[:16], ZOO["cnn_small"].shape)
    assert small.conv1.weight.shape[0] == 1
    assert not small.bn1.weight.any() and not small.bn1.bias.any()


def test_the_original_is_left_alone():
    graph = graph_of("resnet8")
    state = copy.deepcopy(graph.state_dict())
    remove_groups(graph, groups_of("resnet8")[::2], ZOO["resnet8"].shape)
    assert all(torch.equal(value, state[key]) for key, value in graph.state_dict().items())


def test_nothing_to_remove_gives_an_equal_copy():
    graph, x = graph_of("mlp"), ZOO["mlp"].inputs(2)
    copied = remove_groups(graph, [], (12,))
    assert copied is not graph and torch.equal(copied(x), graph(x))


def test_groups_of_another_graph_are_refused():
    with pytest.raises(InputError, match="another graph"):
        remove_groups(graph_of("resnet8"), groups_of("vgg_small")[:3], (3, 16, 16))


def test_the_scale_of_attention_stays_a_constant():
    name = "vit_tiny"
    heads = [g for g in groups_of(name) if g.kind == "head"][:1]
    small = remove_groups(graph_of(name), heads, ZOO[name].shape)
    calls = [n for n in small.graph.nodes if "scaled_dot" in str(n.target)]
    assert [n.kwargs.get("scale") for n in calls] == [0.25] * 4
