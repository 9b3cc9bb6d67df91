from __future__ import annotations

import pytest
import torch

from modelmend.model.architectures import ARCHITECTURES
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe.fast import fast_copy
from modelmend.probe.tap import Tap
from modelmend.records import Preprocessing


def classifier(arch: str) -> Classifier:
    torch.manual_seed(0)
    module = ARCHITECTURES[arch](3, 10, 16)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2)
            part.weight.data.uniform_(0.5, 1.5)
    preprocessing = Preprocessing(mean=(0.5,) * 3, std=(0.2,) * 3)
    return Classifier(export_module(module, (3, 16, 16)), preprocessing, 10)


def norms(model: Classifier) -> int:
    return sum(node.target is torch.ops.aten.batch_norm.default for node in model.graph.graph.nodes)


@pytest.mark.parametrize("arch", ["resnet8", "wrn_16_1", "mobilenet_small"])
def test_the_fast_copy_computes_the_same_logits_and_leaves_the_model_alone(arch: str) -> None:
    model = classifier(arch)
    x = torch.rand(4, 3, 16, 16)
    expected = model(x)
    fast = fast_copy(model, x)
    assert torch.allclose(fast(x), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(model(x), expected)
    assert norms(fast) < norms(model)


@pytest.mark.parametrize("arch", ["resnet8", "vgg_small", "vit_tiny"])
def test_features_can_be_read_and_replaced(arch: str) -> None:
    model = classifier(arch)
    tap = Tap(model)
    x = torch.rand(4, 3, 16, 16)
    logits, features = tap.features(x)
    assert torch.allclose(logits, model(x), atol=1e-5)
    assert torch.allclose(tap.head(features), logits, atol=1e-5)
    moved = tap.logits(x, lambda seen: seen.flip(0))
    assert torch.allclose(moved, logits.flip(0), atol=1e-5)
