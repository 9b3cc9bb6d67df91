"""One rule each: small networks of which it is known what may go and what may not."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

from modelmend.model.groups import find_groups, zero_groups
from modelmend.model.masks import Masked
from modelmend.model.remove import remove_groups

from .graphs import apart, graph


class Between(nn.Module):
    """Linear, something, linear."""

    def __init__(self, middle, width=6, out=None):
        super().__init__()
        self.first, self.last = nn.Linear(4, width), nn.Linear(out or width, 3)
        self.middle = middle

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class Images(nn.Module):
    """Convolution, something, pooled linear."""

    def __init__(self, middle, width=6, out=None, **extra):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, width, 3, padding=1), nn.Linear(out or width, 3)
        self.middle = middle
        for name, module in extra.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.last(self.middle(self.first(x)).mean((2, 3)))


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


def sound(made, shape, expected):
    """The groups are as expected; zeroed, masked and removed agree; each group matters."""
    groups = find_groups(made, shape)
    assert Counter(g.kind for g in groups) == expected
    x = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    masked = Masked(made, groups)
    with torch.no_grad():
        for cut in [[g] for g in groups] + [groups[::2], groups]:
            keep = torch.ones(len(groups))
            keep[[g.index for g in cut]] = 0
            zeroed = copy.deepcopy(made)
            zero_groups(zeroed, cut)
            wanted = masked(x, keep)
            assert apart(wanted, zeroed(x)) <= 1e-5
            assert apart(wanted, remove_groups(made, cut, shape)(x)) <= 1e-4
            if len(cut) == 1:
                assert apart(made(x), wanted) > 1e-7
    return groups


@pytest.mark.parametrize("act", [nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.ReLU6(), nn.Hardswish(), nn.PReLU(6)])
def test_zero_stays_zero(act):
    groups = sound(graph(Between(act), 4), (4,), {"unit": 6})
    assert not any(s.zero for g in groups for s in g.slices if s.role == "in")


@pytest.mark.parametrize(
    "act", [nn.Sigmoid(), nn.Softplus(), nn.Hardsigmoid(), Apply(torch.exp), Apply(lambda x: x + 1)]
)
def test_where_zero_becomes_something_the_readers_columns_go_too(act):
    groups = sound(graph(Between(act), 4), (4,), {"unit": 6})
    assert all(any(s.zero for s in g.slices if s.role == "in") for g in groups)


@pytest.mark.parametrize("function", [lambda x: x.abs().log(), lambda x: 1 / x, lambda x: x.rsqrt()])
def test_what_is_infinite_at_zero_is_not_offered(function):
    assert not find_groups(graph(Between(Apply(function)), 4), (4,))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.softmax(-1),
        lambda x: x.cumsum(-1),
        lambda x: x - x.mean(-1, keepdim=True),
        lambda x: x / x.amax(-1, keepdim=True).clamp_min(1),
        lambda x: functional.layer_norm(x, (6,)),
        lambda x: functional.normalize(x, dim=-1),
        lambda x: x.flip(-1),
    ],
)
def test_what_mixes_channels_is_not_offered(function):
    assert not find_groups(graph(Between(Apply(function)), 4), (4,))


def test_a_sum_over_the_channels_reads_them():
    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(1, 3)

        def forward(self, x):
            return self.last(self.first(x).relu().sum(1, keepdim=True))

    sound(graph(Summed(), 4), (4,), {"unit": 6})


def test_gated_linear_units_pair_their_halves():
    groups = sound(graph(Between(nn.GLU(), 8, 4), 4), (4,), {"unit": 4})
    assert groups[0].slices[0].index == (0, 4)


def test_concatenated_channels_stay_apart():
    sound(graph(Between(Apply(lambda x: torch.cat([x.relu(), x.tanh()], 1)), 6, 12), 4), (4,), {"unit": 6})


def test_chunks_and_slices_of_channels():
    def forward(x):
        a, b = x.chunk(2, 1)
        return torch.cat([a * b, x[:, 1::2]], 1)

    groups = sound(graph(Between(Apply(forward), 6, 6), 4), (4,), {"unit": 3})
    assert groups[0].slices[0].index == (0, 3)


def test_whole_norm_groups_go_together():
    groups = sound(graph(Images(nn.GroupNorm(3, 6)), 2, 5, 5), (2, 5, 5), {"norm group": 3})
    assert groups[0].slices[0].index == (0, 1)


def test_a_norm_over_all_channels_fixes_them():
    assert not find_groups(graph(Images(nn.GroupNorm(1, 6)), 2, 5, 5), (2, 5, 5))


@pytest.mark.parametrize(
    "norm", [nn.InstanceNorm2d(6, affine=True), nn.BatchNorm2d(6), nn.BatchNorm2d(6, affine=False)]
)
def test_norms_of_each_channel_apart(norm):
    sound(graph(Images(norm), 2, 5, 5), (2, 5, 5), {"channel": 6})


def test_depthwise_filters_follow_their_channel():
    depthwise = nn.Sequential(nn.Conv2d(6, 12, 3, padding=1, groups=6), nn.ReLU())
    groups = sound(graph(Images(depthwise, 6, 12), 2, 5, 5), (2, 5, 5), {"channel": 6})
    assert next(s for s in groups[0].slices if s.param == "middle.0.weight").index == (0, 1)


def test_groups_of_a_grouped_convolution_go_whole():
    groups = sound(graph(Images(nn.Conv2d(6, 9, 3, groups=3), 6, 9), 2, 5, 5), (2, 5, 5), {"conv group": 3})
    weights = {s.param: s.index for s in groups[1].slices if s.dim == 0}
    assert weights["first.weight"] == (2, 3) and weights["middle.weight"] == (3, 4, 5)


def test_transposed_convolutions():
    sound(graph(Images(nn.ConvTranspose2d(6, 5, 2, 2), 6, 5), 2, 5, 5), (2, 5, 5), {"channel": 11})


def test_same_padding_is_understood():
    sound(graph(Images(nn.Conv2d(6, 5, 3, padding="same"), 6, 5), 2, 5, 5), (2, 5, 5), {"channel": 11})


def test_flatten_gives_each_channel_its_columns():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(2, 4, 3), nn.Linear(4 * 9, 3)

        def forward(self, x):
            return self.last(self.first(x).relu().flatten(1))

    groups = sound(graph(Flat(), 2, 5, 5), (2, 5, 5), {"channel": 4})
    assert next(s for s in groups[1].slices if s.param == "last.weight").index == tuple(range(9, 18))
    assert groups[1].sites[0].channels == (1,)


def test_shortcut_padded_with_zero_channels():
    class OptionA(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.body, self.last = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 8, 3, 2, 1), nn.Linear(8, 3)

        def forward(self, x):
            x = self.stem(x).relu()
            kept = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
            return self.last((self.body(x) + kept).relu().mean((2, 3)))

    sound(graph(OptionA(), 2, 5, 5), (2, 5, 5), {"stream": 8})


def test_gate_over_channels_goes_with_them():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = nn.Conv2d(6, 2, 1), nn.Conv2d(2, 6, 1)

        def forward(self, x):
            return x * torch.sigmoid(self.up(self.down(x.mean((2, 3), keepdim=True)).relu()))

    groups = sound(graph(Images(Gate()), 2, 5, 5), (2, 5, 5), {"channel": 8})
    assert {"first.weight", "middle.up.weight"} <= {s.param for s in groups[0].slices}


def test_gate_over_places_leaves_channels_free():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.look = nn.Conv2d(6, 1, 3, padding=1)

        def forward(self, x):
            return x * torch.sigmoid(self.look(x))

    sound(graph(Images(Gate()), 2, 5, 5), (2, 5, 5), {"channel": 6})


def test_layer_scale_and_added_constants_go_with_the_channel():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.shift = nn.Parameter(torch.ones(6, 1, 1)), nn.Parameter(torch.ones(6, 1, 1))

        def forward(self, x):
            return x * self.scale + self.shift

    groups = sound(graph(Images(Scaled()), 2, 5, 5), (2, 5, 5), {"channel": 6})
    assert {s.param for s in groups[0].slices if s.role == "value"} == {"middle.scale", "middle.shift"}


def test_a_sum_with_the_input_fixes_the_channel():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.last((self.body(x) + x).relu())

    assert not find_groups(graph(Skip(), 4), (4,))


def test_shared_weights_tie_their_uses():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(self.again(self.again(self.first(x).relu()).relu()).relu())

    groups = sound(graph(Twice(), 4), (4,), {"unit": 6})
    assert {(s.param, s.dim) for s in groups[0].slices if s.param == "again.weight"} == {
        ("again.weight", 0),
        ("again.weight", 1),
    }


def test_a_linear_layer_over_places_leaves_channels_free():
    class Mixer(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.mix, self.last = nn.Conv1d(2, 5, 1), nn.Linear(7, 7), nn.Conv1d(5, 3, 1)

        def forward(self, x):
            return self.last(self.mix(self.first(x)).relu()).mean(2)

    sound(graph(Mixer(), 2, 7), (2, 7), {"channel": 5})


def test_an_embedding_column_is_a_unit():
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.last = nn.Embedding(9, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(self.table(x).mean(1))

    made = graph(Bag(), 5)
    groups = find_groups(made, (5,))
    assert len(groups) == 6
    x = torch.arange(10).reshape(2, 5) % 9
    small = remove_groups(made, groups[:3], (5,))
    assert small.table.weight.shape == (9, 3)
    assert apart(Masked(made, groups)(x, torch.tensor([0, 0, 0, 1, 1, 1])), small(x)) <= 1e-5


def test_a_single_head_is_no_group():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.last = nn.Linear(4, 18), nn.Linear(6, 3)

        def forward(self, x):
            q, k, v = self.qkv(x).unsqueeze(1).chunk(3, -1)
            return self.last(functional.scaled_dot_product_attention(q, k, v).squeeze(1)).mean(1)

    assert not find_groups(graph(Attention(), 5, 4), (5, 4))
