from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from modelmend.errors import InputError
from modelmend.model.groups import zero_groups
from modelmend.model.masks import Masked

from .graphs import apart, graph, graph_of, groups_of
from .test_groups_rules import Between
from .zoo import ZOO

SOME = ("resnet8", "mobilenet_v3", "densenet", "vit_mha", "swin", "text")


def drawn(count, share, seed=0):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) < share


def zeroed(name, keep):
    made = copy.deepcopy(graph_of(name))
    zero_groups(made, [g for g, k in zip(groups_of(name), keep, strict=True) if not k])
    return made


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("share", [0.9, 0.3, 0.0])
def test_a_mask_is_what_zeroed_weights_give(name, share):
    x, keep = ZOO[name].inputs(3), drawn(len(groups_of(name)), share)
    with torch.no_grad():
        wanted = zeroed(name, keep)(x)
        for form in (keep, keep.float(), keep.double()):
            assert apart(wanted, Masked(graph_of(name), groups_of(name))(x, form)) <= 1e-5


@pytest.mark.parametrize("name", ("resnet8", "mobilenet_v3", "vit_mha"))
def test_one_mask_a_sample(name):
    x, count = ZOO[name].inputs(3), len(groups_of(name))
    masked = Masked(graph_of(name), groups_of(name))
    keep = torch.stack([drawn(count, 0.7, seed) for seed in range(3)])
    with torch.no_grad():
        both = masked(x, keep)
        for row in range(3):
            assert apart(masked(x[row : row + 1], keep[row]), both[row : row + 1]) <= 1e-5


def test_gradients_reach_the_mask():
    masked = Masked(graph_of("resnet8"), groups_of("resnet8"))
    keep = torch.ones(len(groups_of("resnet8")), requires_grad=True)
    masked(ZOO["resnet8"].inputs(2), keep).square().sum().backward()
    assert (keep.grad.abs() > 0).float().mean() > 0.5  # the rest is behind dead ReLUs


def test_a_soft_mask_counts_once_at_each_reader():
    made = graph(Between(nn.Sequential(nn.ReLU(), nn.Dropout(0.1))), 4)
    from modelmend.model.groups import find_groups

    groups, x = find_groups(made, (4,)), torch.randn(5, 4)
    with torch.no_grad():
        hidden = made.first.weight @ x.T + made.first.bias[:, None]
        wanted = made.last.weight @ (0.5 * hidden.relu()) + made.last.bias[:, None]
        assert apart(wanted.T, Masked(made, groups)(x, torch.full((6,), 0.5))) <= 1e-5


@pytest.mark.parametrize("name", SOME)
def test_resuming_from_any_first_site_gives_the_same(name):
    x, groups = ZOO[name].inputs(4), groups_of(name)
    masked = Masked(graph_of(name), groups)
    with torch.no_grad():
        for number in range(0, len(groups), max(1, len(groups) // 6)):
            keep = torch.ones(len(groups), dtype=torch.bool)
            keep[number] = False
            cache = masked.prefix(x, masked.first_site_depth(number))
            assert apart(masked(x, keep), masked.run_from(cache, keep)) <= 1e-6
            part = torch.tensor([2, 0])
            assert apart(masked(x[part], keep), masked.run_from(cache.subset(part), keep)) <= 1e-5
            assert apart(masked(x[1:3], keep), masked.run_from(cache.subset(slice(1, 3)), keep)) <= 1e-5


def test_a_prefix_carries_the_mask_that_was_decided():
    masked, x = Masked(graph_of("resnet8"), groups_of("resnet8")), ZOO["resnet8"].inputs(2)
    late = max(range(len(masked.groups)), key=masked.first_site_depth)
    early = torch.ones(len(masked.groups))
    early[:5] = 0
    both = early.clone()
    both[late] = 0
    with torch.no_grad():
        cache = masked.prefix(x, masked.first_site_depth(late), early)
        assert apart(masked(x, both), masked.run_from(cache, both)) <= 1e-6
        with pytest.raises(InputError, match="before the cut"):
            masked.run_from(cache, torch.ones(len(masked.groups)))


def test_depth_is_that_of_the_earliest_cut():
    masked = Masked(graph_of("resnet8"), groups_of("resnet8"))
    keep = torch.ones(len(masked.groups))
    assert masked.depth(keep) == masked.program.stop
    keep[[3, 200]] = 0
    assert masked.depth(keep) == min(masked.first_site_depth(3), masked.first_site_depth(200))


def test_edits_of_the_weights_are_seen():
    made = copy.deepcopy(graph_of("cnn_small"))
    masked, x = Masked(made, groups_of("cnn_small")), ZOO["cnn_small"].inputs(2)
    keep = torch.ones(len(masked.groups))
    with torch.no_grad():
        made.fc.weight.zero_()
        assert torch.allclose(masked(x, keep), made.fc.bias.expand(2, -1))


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(InputError, match="entries"):
        Masked(graph_of("cnn_small"), groups_of("cnn_small"))(ZOO["cnn_small"].inputs(1), torch.ones(3))
