from __future__ import annotations

import torch
from torch import nn

from modelmend.editing.batchnorm import reestimate
from modelmend.editing.layers import tensors, weight_layers
from modelmend.model.classifier import Classifier

from .conftest import wrap


def test_layers_are_found_in_order_with_their_batch_norm(small: Classifier) -> None:
    layers = weight_layers(small.graph)
    assert [layer.kind for layer in layers] == ["conv", "conv", "linear"]
    assert [layer.norm is not None for layer in layers] == [True, False, False]
    assert [layer.last for layer in layers] == [False, False, True]
    assert all(layer.weight in tensors(small.graph) for layer in layers)


def test_reestimated_statistics_are_those_of_torch(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3, momentum=1.0), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)
    )
    classifier = wrap(module, (1, 8, 8), 2)
    assert reestimate(classifier, images, batch_size=64)
    module.train()(images)
    own = tensors(classifier.graph)
    norm = module[1]
    assert isinstance(norm, nn.BatchNorm2d)
    mean = next(v for k, v in own.items() if k.endswith("running_mean"))
    var = next(v for k, v in own.items() if k.endswith("running_var"))
    torch.testing.assert_close(mean, norm.running_mean)
    torch.testing.assert_close(var, norm.running_var)
    once = classifier(images)
    torch.testing.assert_close(classifier(images[:5]), once[:5])  # back in evaluation mode


def test_a_model_without_batch_norm_is_left_alone(images: torch.Tensor) -> None:
    classifier = wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (1, 8, 8), 3)
    assert not reestimate(classifier, images)
