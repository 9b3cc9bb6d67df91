import pytest

from modelmend.gate.composite import composite_index, composite_parts, formula
from modelmend.gate.policy import Policy
from modelmend.records import Measured
from tests.evidence import good_card, good_privacy, residual


def test_the_index_is_the_weighted_mean_of_its_parts():
    policy, card = Policy(), good_card()
    parts = composite_parts(policy, card, good_privacy())
    w = policy.composite
    expected = sum(getattr(w, name) * part for name, part in parts.items())
    assert composite_index(policy, card, good_privacy()) == pytest.approx(expected / 1.0)


def test_parts_follow_the_published_formula():
    parts = composite_parts(Policy(), good_card(seconds={"a": 1800.0}, passes={"a": 3_000_000.0}), good_privacy())
    assert parts["backdoor"] == pytest.approx(1 - 8 / 360)
    assert parts["accuracy"] == pytest.approx(1 - 0.005 / 0.05)
    assert parts["privacy"] == 1.0
    assert parts["explainability"] == pytest.approx(0.7)
    assert parts["time"] == 0.5
    assert parts["compute"] == 0.25


def test_what_was_not_measured_counts_nothing():
    unmeasured = residual().model_copy(update={"after": Measured()})
    card = good_card(accuracy_drop=Measured(), residuals=(unmeasured,), explainability=None, seconds={}, passes={})
    assert set(composite_parts(Policy(), card, None).values()) == {0.0}


def test_one_unmeasured_residual_takes_the_whole_part():
    card = good_card(residuals=(residual(), residual("kept", "additive").model_copy(update={"after": Measured()})))
    assert composite_parts(Policy(), card, None)["backdoor"] == 0.0


def test_the_formula_that_the_decision_carries_names_the_weights():
    policy = Policy(composite={"backdoor": 0.75})
    assert "0.75 × backdoor" in formula(policy)
