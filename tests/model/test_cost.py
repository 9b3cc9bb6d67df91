from __future__ import annotations

import pytest
from torch import nn

from modelmend.model.cost import count
from modelmend.model.remove import remove_groups

from .graphs import graph, graph_of, groups_of
from .zoo import ZOO


def test_a_convolution_and_a_linear_layer_by_hand():
    made = graph(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)), 3, 6, 6
    )
    found = count(made, (3, 6, 6))
    assert found.parameters == 3 * 8 * 9 + 8 + 8 * 5 + 5
    assert found.macs == 6 * 6 * 8 * 3 * 9 + 8 * 5


def test_grouped_and_transposed_convolutions_by_hand():
    assert count(graph(nn.Conv1d(6, 12, 3, groups=6), 6, 5), (6, 5)).macs == 3 * 12 * 3
    assert count(graph(nn.ConvTranspose2d(4, 6, 2, 2), 4, 3, 3), (4, 3, 3)).macs == 9 * 4 * 6 * 4


def test_attention_counts_both_products():
    class Attention(nn.Module):
        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(x, x, x).sum((1, 2))

    assert count(graph(Attention(), 2, 7, 4), (2, 7, 4)).macs == 2 * 2 * 7 * 7 * 4


@pytest.mark.parametrize("name", ["resnet8", "densenet", "mobilenet_v3", "swin", "text", "mlp"])
def test_parameters_are_those_of_the_module(name):
    assert count(graph_of(name), ZOO[name].shape).parameters == sum(p.numel() for p in ZOO[name].module().parameters())


def test_compression_is_the_share_that_went():
    shape = ZOO["cnn_small"].shape
    before = count(graph_of("cnn_small"), shape)
    after = count(remove_groups(graph_of("cnn_small"), groups_of("cnn_small")[::2], shape), shape)
    parameters, macs = after.compression(before)
    assert parameters == pytest.approx(1 - after.parameters / before.parameters)
    assert 0.5 < parameters < 1 and 0.5 < macs < 1
    assert before.compression(before) == (0, 0)
