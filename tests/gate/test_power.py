from pathlib import Path

import pytest

from modelmend.gate.policy import Policy, load_policy
from modelmend.gate.power import (
    accuracy_pass_probability,
    needed,
    needed_for_accuracy,
    needed_for_residual,
    power_table,
    residual_pass_probability,
    smallest,
)
from modelmend.gate.schema import PrivacyBounds
from modelmend.metrics import paired_drop_counts, upper_bound

DOCS = Path(__file__).parents[2] / "docs" / "policy.md"


@pytest.mark.parametrize("name", ["default", "strict"])
@pytest.mark.parametrize("looks", [1, 2])
def test_needed_is_the_smallest_number_at_which_no_change_passes(name, looks):
    policy = load_policy(name)
    n, level = needed_for_accuracy(policy, looks), policy.bound_level(policy.accuracy.level, looks)
    assert paired_drop_counts(0, 0, n, level)[1] <= policy.accuracy.max_drop_upper
    assert paired_drop_counts(0, 0, n - 1, level)[1] > policy.accuracy.max_drop_upper


def test_residual_need_is_the_smallest_number_at_which_no_success_passes():
    policy = Policy().model_copy(update={"backdoor": Policy().backdoor.model_copy(update={"min_samples": 1})})
    n, level = needed_for_residual(policy), policy.bound_level(policy.backdoor.level, 1)
    limit = min(policy.backdoor.max_success_upper, policy.backdoor.max_excess_upper)
    assert upper_bound(0, n, level) <= limit < upper_bound(0, n - 1, level)


@pytest.mark.parametrize(("audited", "total"), [(1, 73), (200, 200)])
def test_needed_is_the_largest_of_accuracy_residual_and_audit(audited, total):
    policy = Policy(privacy=PrivacyBounds(min_samples=audited))
    assert max(needed_for_accuracy(policy), needed_for_residual(policy)) == 73
    assert needed(policy) == total


@pytest.mark.parametrize("threshold", [1, 2, 3, 17, 64, 1000])
def test_smallest_finds_the_first(threshold):
    assert smallest(lambda n: n >= threshold) == threshold


def test_smallest_gives_up_on_a_bound_that_nothing_meets():
    with pytest.raises(ValueError, match="no number of samples"):
        smallest(lambda n: False)


def test_probability_of_passing_is_exact():
    from scipy.stats import binom

    policy, n = Policy(), 200
    level = policy.bound_level(policy.accuracy.level, 1)
    exact = sum(
        binom.pmf(won, n, 0.01) * binom.pmf(lost, n - won, 0.04 / 0.99)
        for won in range(20)
        for lost in range(40)
        if (lost - won) / n <= policy.accuracy.max_drop
        and paired_drop_counts(lost, won, n, level)[1] <= policy.accuracy.max_drop_upper
    )
    assert accuracy_pass_probability(policy, n, 0.03, swapped=0.01) == pytest.approx(exact, abs=1e-6)
    assert accuracy_pass_probability(policy, n, 0.0, swapped=0.0) == pytest.approx(1.0)


def test_a_drop_above_the_upper_bound_passes_at_most_as_often_as_the_level_allows():
    policy = Policy()
    for swapped in (0.0, 0.02, 0.1):
        assert all(accuracy_pass_probability(policy, n, 0.0501, swapped=swapped) <= 0.025 for n in (100, 300, 1000))
    assert all(residual_pass_probability(policy, n, 0.2501) <= 0.025 for n in (100, 300, 1000))


@pytest.mark.parametrize("name", ["default", "strict"])
def test_the_documented_table_is_the_computed_one(name):
    assert power_table(load_policy(name)) in DOCS.read_text(encoding="utf-8")
