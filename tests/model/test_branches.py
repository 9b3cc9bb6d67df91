"""Streams taken apart: what one layer adds to a sum is cut alone."""

import copy

import pytest
import torch
from torch import nn

from modelmend.model.branches import split_branches, wholly_cut
from modelmend.model.groups import find_groups, zero_groups
from modelmend.model.masks import Masked

from .graphs import apart, graph, graph_of, groups_of
from .zoo import ZOO

SPLIT = ("resnet8", "wrn_16_1", "mobilenet_small", "resnet_bottleneck", "mobilenet_v3")
WHOLE = ("vgg_small", "densenet", "vit_tiny", "swin", "mlp", "text")


@pytest.mark.parametrize("name", SPLIT)
def test_a_branch_zeroed_is_what_its_mask_gives_and_the_rest_of_the_stream_stays(name):
    made, whole, x = graph_of(name), groups_of(name), ZOO[name].inputs(2)
    parts = split_branches(made, whole)
    branches = [part for part in parts if part.kind == "branch"]
    assert branches and [part.index for part in parts] == list(range(len(parts)))
    masked, keep, moved = Masked(made, parts), torch.ones(len(parts)), []
    for part in branches[:: max(1, len(branches) // 6)]:
        keep[part.index] = 0
        zeroed = copy.deepcopy(made)
        zero_groups(zeroed, [part])
        with torch.no_grad():
            assert apart(zeroed(x), masked(x, keep)) <= 1e-5
            moved.append(apart(zeroed(x), made(x)))
        keep[part.index] = 1
    assert max(moved) > 1e-4


def test_all_branches_together_are_the_group():
    made, whole = graph_of("resnet8"), groups_of("resnet8")
    parts = split_branches(made, whole)
    stream = next(group for group in whole if group.kind == "stream")
    mine = [part for part in parts if part.kind == "branch" and part.slices[0] in stream.slices]
    assert len(mine) == 2
    one, other = copy.deepcopy(made), copy.deepcopy(made)
    zero_groups(one, mine)
    zero_groups(other, [stream])
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert wholly_cut(whole, mine) == [stream]
    assert not wholly_cut(whole, mine[:1])


@pytest.mark.parametrize("name", WHOLE)
def test_groups_without_convolutions_that_add_to_them_stay_whole(name):
    assert tuple(split_branches(graph_of(name), groups_of(name))) == groups_of(name)


class Shared(nn.Module):
    """One convolution used twice, and a constant added: neither can be taken apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.shift = nn.Parameter(torch.ones(1, 4, 1, 1))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.first(x)
        x = torch.relu(x + self.again(x) + self.again(torch.relu(x)) + self.shift)
        return self.head(x.mean((2, 3)))


def test_a_layer_used_twice_keeps_its_stream_whole():
    made = graph(Shared(), 2, 6, 6)
    whole = find_groups(made, (2, 6, 6))
    assert {group.kind for group in whole} == {"stream"}
    assert split_branches(made, whole) == whole
