"""How much each candidate trigger counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modelmend.probe.trigger import Trigger
from modelmend.probe.weights import pair_weights, trigger_weights


def additive(size: float, target: int, family: str = "additive") -> Trigger:
    return Trigger(family, target, {"delta": torch.full((1, 8, 8), size)})


def test_a_class_that_needs_a_larger_trigger_counts_less() -> None:
    x = torch.rand(4, 1, 8, 8)
    triggers = [additive(0.1, 1), additive(0.3, 2), additive(0.1, 1, "patch")]
    weight = pair_weights(triggers, [("additive", 1), ("additive", 2), ("patch", 1)], x * 0.5)
    assert torch.isclose(weight[0] / weight[1], torch.tensor(4 * 81.0), rtol=1e-3)  # fourth power, two families agree
    assert torch.isclose(weight.sum(), torch.tensor(1.0))


def test_a_class_that_only_one_family_names_counts_less() -> None:
    x = torch.rand(4, 1, 8, 8)
    triggers = [additive(0.1, 1), additive(0.1, 1, "patch"), additive(0.1, 2, "warp")]
    weight = pair_weights(triggers, [("additive", 1), ("patch", 1), ("warp", 2)], x * 0.5)
    assert torch.allclose(weight, torch.tensor([4 / 9, 4 / 9, 1 / 9]), atol=1e-4)


def test_a_family_in_which_the_class_does_not_stand_out_counts_little() -> None:
    x = torch.rand(4, 1, 8, 8)
    triggers = [replace(additive(0.1, 1), lead=4.0), replace(additive(0.1, 1, "patch"), lead=-3.0)]
    weight = pair_weights(triggers, [("additive", 1), ("patch", 1)], x * 0.5)
    assert torch.allclose(weight, torch.tensor([4 / 4.1, 0.1 / 4.1]), atol=1e-4)


def test_later_triggers_share_the_weight_that_the_first_of_their_pair_has() -> None:
    x = torch.rand(4, 1, 8, 8) * 0.5
    first = [replace(additive(0.1, 1), lead=3.0), replace(additive(0.1, 1, "patch"), lead=1.0)]
    again = [
        additive(0.4, 1),
        additive(0.3, 1),
    ]  # larger, of unknown lead: neither may change what their family counts for
    assert trigger_weights([*first, *again], x) == pytest.approx((0.25, 0.25, 0.25, 0.25))
    assert trigger_weights(first, x) == pytest.approx((0.75, 0.25))


def test_no_triggers_have_no_weights() -> None:
    assert trigger_weights([], torch.rand(2, 1, 4, 4)) == ()
