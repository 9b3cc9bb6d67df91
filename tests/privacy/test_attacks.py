from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from modelmend.model.classifier import Classifier
from modelmend.privacy.attacks import ATTACKS, view
from modelmend.privacy.attacks import gradient as gradient_module

from .conftest import Pair


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_finds_the_members_of_a_model_that_learned_them_by_heart(
    name: str, overfitted: Classifier, suspect: Classifier, repair: Pair, gate: Pair
) -> None:
    attack = ATTACKS[name]
    inside, outside = (
        attack.score(view(overfitted, *pair, earlier=view(suspect, *pair).logits)).mean() for pair in (repair, gate)
    )
    assert inside > outside


def test_gradient_norm_equals_one_backward_pass_a_sample(
    suspect: Classifier, gate: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = gate[0][:6], gate[1][:6]
    expected = []
    for a, b in zip(x, y, strict=True):
        model = suspect.clone()
        for parameter in model.graph.parameters():
            parameter.requires_grad_(True)
        functional.cross_entropy(model(a[None]), b[None]).backward()
        expected.append(torch.stack([p.grad.norm() for p in model.graph.parameters() if p.grad is not None]).norm())
    scores = ATTACKS["gradient-norm"].score(view(suspect, x, y))
    torch.testing.assert_close((-scores).exp(), torch.stack(expected).double(), rtol=1e-4, atol=1e-8)

    def unsupported(*args: object, **kwargs: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(gradient_module.torch.func, "vmap", unsupported)
    again = ATTACKS["gradient-norm"].score(view(suspect, x, y))
    torch.testing.assert_close(again, scores, rtol=1e-4, atol=1e-4)


def test_modified_entropy_is_high_for_a_confident_error(suspect: Classifier, gate: Pair) -> None:
    x, y = gate[0][:3], torch.tensor([0, 1, 0])
    given = view(suspect, x, y)
    logits = torch.tensor([[9.0, 0, 0, 0], [9.0, 0, 0, 0], [0.0, 0, 0, 0]], dtype=torch.float64)
    right, wrong, unsure = ATTACKS["modified-entropy"].score(type(given)(suspect, x, y, logits)).tolist()
    assert right > unsure > wrong
