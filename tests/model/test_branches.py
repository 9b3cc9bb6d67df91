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


class Residual(nn.Module):
    """Two convolutions that add to one stream, what is done to the sum given."""

    def __init__(self, after: nn.Module, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.after = norm or nn.Identity(), after
        self.read, self.head = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.norm(self.a(x))
        x = self.after(x + self.b(torch.relu(x)))
        return self.head(torch.relu(self.read(x)).mean((2, 3)))


@pytest.mark.parametrize("after", [nn.Sigmoid(), nn.Softplus(), nn.BatchNorm2d(4, affine=False), nn.ReLU()])
def test_cutting_one_branch_leaves_the_other_to_the_reader(after):
    made, x = graph(Residual(after), 2, 6, 6), torch.rand(3, 2, 6, 6)
    parts = split_branches(made, find_groups(made, (2, 6, 6)))
    masked = Masked(made, parts)
    for part in parts:
        keep = torch.ones(len(parts))
        keep[part.index] = 0
        zeroed = copy.deepcopy(made)
        zero_groups(zeroed, [part])
        with torch.no_grad():
            assert apart(zeroed(x), masked(x, keep)) <= 1e-5
        soft = masked(x, keep.requires_grad_())  # the way of gradients masks on the way into readers
        assert apart(zeroed(x), soft) <= 1e-5


class Gated(nn.Module):
    """Squeeze and excite on the branch: the gate is no branch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gate = (nn.Conv2d(i, 4, 1) for i in (2, 4, 4))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.a(x)
        x = x + self.b(x) * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))
        return self.head(torch.relu(x).mean((2, 3)))


class SharedNorm(nn.Module):
    """One norm behind a convolution and again on the sum: to zero it would silence both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm, self.head = (
            nn.Conv2d(2, 4, 1),
            nn.Conv2d(4, 4, 1),
            nn.BatchNorm2d(4),
            nn.Linear(4, 3),
        )

    def forward(self, x):
        x = self.norm(self.a(x))
        return self.head(torch.relu(self.norm(x + self.b(x))).mean((2, 3)))


@pytest.mark.parametrize("module", [Gated, SharedNorm])
def test_gates_and_shared_norms_keep_their_stream_whole(module):
    made = graph(module(), 2, 6, 6)
    whole = find_groups(made, (2, 6, 6))
    assert not any(part.kind == "branch" for part in split_branches(made, whole))


def test_branches_stand_in_the_order_of_the_layers_that_make_them():
    made = graph_of("wrn_16_1")
    layers = list(dict.fromkeys(part.layer for part in split_branches(made, groups_of("wrn_16_1"))))
    weights = [str(n.args[1].target).removesuffix(".weight") for n in made.graph.nodes if "conv2d" in str(n.target)]
    assert layers == [name for name in weights if name in layers]
