from __future__ import annotations

import pytest
import torch

from modelmend.model.architectures import ARCHITECTURES
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.model.groups import find_groups, zero_groups
from modelmend.pruning.forward import MaskedForward
from modelmend.records import Preprocessing

SHAPE = (3, 16, 16)


def network(name: str) -> Classifier:
    torch.manual_seed(0)
    module = ARCHITECTURES[name](3, 5, 16)
    module.train()
    for _ in range(3):  # batch norm statistics that are not the initial ones
        module(torch.randn(8, *SHAPE))
    return Classifier(export_module(module.eval(), SHAPE), Preprocessing(), 5).frozen()


@pytest.mark.parametrize("name", ["cnn_small", "resnet8", "preact_resnet18", "vgg_small", "vit_tiny"])
def test_logits_are_those_of_zeroed_weights(name: str) -> None:
    if name not in ARCHITECTURES:
        pytest.skip(f"no architecture {name}")
    classifier = network(name)
    groups = find_groups(classifier.graph, SHAPE)
    x = torch.rand(6, *SHAPE)
    keep = torch.rand(4, len(groups), generator=torch.Generator().manual_seed(1)) > 0.1
    keep[0] = True
    forward = MaskedForward(classifier, groups, x, chunk=4)
    found = torch.cat([forward.logits(keep, i) for i in range(2)], 1)
    for mask, logits in zip(keep, found, strict=True):
        zeroed = classifier.clone()
        zero_groups(zeroed.graph, [g for g, k in zip(groups, mask, strict=True) if not k])
        assert torch.allclose(zeroed(x), logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_forgotten_branches_are_computed_again() -> None:
    classifier = network("resnet8")
    groups = find_groups(classifier.graph, SHAPE)
    keep = torch.rand(6, len(groups), generator=torch.Generator().manual_seed(2)) > 0.05
    x = torch.rand(4, *SHAPE)
    roomy, tight = (MaskedForward(classifier, groups, x, memory=m) for m in (1 << 30, 1))
    first = roomy.logits(keep, 0)
    assert torch.equal(first, tight.logits(keep, 0))
    assert torch.equal(first, roomy.logits(keep, 0))
    assert len(tight._branches) == 1 < len(roomy._branches)


def test_shared_beginnings_cost_nothing_the_second_time() -> None:
    from modelmend.metrics import sample_passes

    classifier = network("resnet8")
    groups = find_groups(classifier.graph, SHAPE)
    forward = MaskedForward(classifier, groups, torch.rand(4, *SHAPE))
    early, late = groups[0].index, groups[-1].index
    keep = torch.ones(2, len(groups), dtype=torch.bool)
    keep[:, early] = False
    keep[1, late] = False

    def cost(mask: torch.Tensor) -> float:
        before = sample_passes()
        forward.logits(mask, 0)
        return sample_passes() - before

    first, second = cost(keep[:1]), cost(keep[1:])
    assert 0 < second < first / 2 <= 2
