from __future__ import annotations

import torch
from torch import Tensor

from modelmend.editing.graphrun import Tail
from modelmend.editing.layers import tensors, weight_layers
from modelmend.editing.response import responses
from modelmend.editing.scale import factors, scale_layers
from modelmend.model.classifier import Classifier

OPEN = (-100.0, 100.0)


def test_factors_follow_the_formula_and_their_bounds() -> None:
    a = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    expected = 1 + 0.5 * (a.mean() - a) / a.std()
    torch.testing.assert_close(factors(a, 0.5, OPEN), expected)
    assert factors(a, 9.0, (0.0, 1.0)).tolist() == [1.0, 1.0, 0.0]
    assert factors(torch.ones(4), 1.0, OPEN).tolist() == [1.0] * 4


def test_what_the_trigger_excites_most_is_scaled_down_most(small: Classifier, images: Tensor) -> None:
    layers = weight_layers(small.graph)[-2:]
    triggered = images.clone()
    triggered[:, :, :3, :3] = 1
    response = responses(small, layers, images, [(1.0, triggered)])
    conv = layers[0]
    edited = small.clone()
    scale_layers(edited, [conv], response, form="channel", s=0.3, bounds=OPEN, batch_norm="frozen")
    ratio = (tensors(edited.graph)[conv.weight] / tensors(small.graph)[conv.weight]).flatten(1).mean(1)
    contrast = response[conv.weight].contrast
    assert int(ratio.argmin()) == int(contrast.argmax())
    torch.testing.assert_close(ratio.double(), factors(contrast, 0.3, OPEN), rtol=1e-4, atol=1e-5)


def test_an_edited_batch_norm_carries_the_factor_like_its_own_scale(small: Classifier, images: Tensor) -> None:
    layer = weight_layers(small.graph)[0]
    assert layer.norm is not None and layer.norm.scale is not None
    response = responses(small, [layer], images, [(1.0, 1 - images)])
    factor = factors(response[layer.weight].contrast, 0.4, (0.0, 1.0))
    edited, scaled = small.clone(), small.clone()
    scale_layers(edited, [layer], response, form="channel", s=0.4, bounds=(0.0, 1.0), batch_norm="edited")
    with torch.no_grad():
        tensors(scaled.graph)[layer.norm.scale].mul_(factor.float())
    torch.testing.assert_close(edited(images), scaled(images), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(edited(images), small(images))


def test_pairs_are_scaled_by_what_the_input_adds_to_the_output(small: Classifier, images: Tensor) -> None:
    layer = weight_layers(small.graph)[-1]
    response = responses(small, [layer], images, [(1.0, 1 - images)])
    edited = small.clone()
    scale_layers(edited, [layer], response, form="pair", s=1.0, bounds=(0.0, 1.0), batch_norm="frozen")
    weight, after = tensors(small.graph)[layer.weight], tensors(edited.graph)[layer.weight]
    added = weight.double() * response[layer.weight].input_contrast
    torch.testing.assert_close(after.double(), weight.double() * factors(added, 1.0, (0.0, 1.0)), rtol=1e-4, atol=1e-6)


def test_the_tail_gives_what_the_whole_edited_model_gives(small: Classifier, images: Tensor) -> None:
    layer = weight_layers(small.graph)[1]
    tail = Tail(small, layer.node, images, 7)
    edited = small.clone()
    with torch.no_grad():
        tensors(edited.graph)[layer.weight].mul_(0.5)
    torch.testing.assert_close(tail.logits(edited), edited(images))
    torch.testing.assert_close(tail.logits(small), small(images))
