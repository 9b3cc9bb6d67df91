from __future__ import annotations

import pytest
import torch
from torch import Tensor

from modelmend.editing.delta import exact_delta, overall_norm, relative_norms, toggle
from modelmend.editing.layers import tensors
from modelmend.errors import ArtifactError
from modelmend.model.classifier import Classifier


def _bits(classifier: Classifier) -> list[bytes]:
    return [t.detach().contiguous().numpy().tobytes() for t in tensors(classifier.graph).values()]


def test_an_edit_is_undone_bit_for_bit_where_a_float_difference_would_not(small: Classifier) -> None:
    edited = small.clone()
    with torch.no_grad():
        weight = next(iter(edited.graph.parameters()))
        flat = weight.view(-1)
        flat[0], flat[1], flat[2] = 1e30, 1e-42, -0.0
        flat[3:] *= 1 + 1e-6
    delta = exact_delta(small.graph, edited.graph)
    before, after = _bits(small), _bits(edited)
    assert before != after
    assert _bits(toggle(edited, delta)) == before
    assert _bits(toggle(small, delta)) == after
    lossy = [(b + (a - b)) for a, b in zip(tensors(small.graph).values(), tensors(edited.graph).values(), strict=True)]
    assert [t.detach().contiguous().numpy().tobytes() for t in lossy] != before


def test_only_changed_tensors_are_in_the_delta(small: Classifier) -> None:
    edited = small.clone()
    name, weight = next(iter(edited.graph.named_parameters()))
    with torch.no_grad():
        weight += 1
    assert set(exact_delta(small.graph, edited.graph)) == {name}
    assert set(relative_norms(small.graph, edited.graph)) == {name}
    assert overall_norm(small.graph, edited.graph) > 0
    assert exact_delta(small.graph, small.clone().graph) == {}


def test_a_delta_of_another_model_is_refused(small: Classifier) -> None:
    name, weight = next(iter(tensors(small.graph).items()))
    with pytest.raises(ArtifactError, match="another model"):
        toggle(small, {name: torch.zeros(weight.numel() + 1, dtype=torch.int32)})
    wrong: dict[str, Tensor] = {"no.such": torch.zeros(1, dtype=torch.int32)}
    with pytest.raises(ArtifactError, match=r"no\.such"):
        toggle(small, wrong)
