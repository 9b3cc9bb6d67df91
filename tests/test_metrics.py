"""One test a definition."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modelmend import metrics

rates = st.floats(0, 1)


def test_accuracy_is_the_share_of_right_answers():
    assert metrics.accuracy([0, 1, 2, 2], [0, 1, 2, 0]) == 0.75
    assert metrics.accuracy(torch.tensor([1, 1]), torch.tensor([0, 1])) == 0.5
    assert math.isnan(metrics.accuracy([], []))


def test_attack_success_leaves_out_samples_of_the_target_class():
    assert metrics.attack_success([7, 7, 7, 1], [7, 7, 0, 1], 7) == 0.5
    assert math.isnan(metrics.attack_success([7, 7], [7, 7], 7))


def test_attack_success_of_an_all_to_all_attack():
    labels = torch.tensor([0, 1, 2, 3])
    assert metrics.attack_success(torch.tensor([1, 2, 3, 3]), labels, (labels + 1) % 4) == 0.75


def test_robust_accuracy_is_the_share_of_triggered_samples_in_their_true_class():
    assert metrics.robust_accuracy([7, 0, 2, 3], [1, 0, 2, 7]) == 0.5


def test_der_of_the_definition():
    assert metrics.der(0.9, 0.9, 1.0, 0.0) == 1.0
    assert metrics.der(0.9, 0.8, 1.0, 0.2) == pytest.approx((0.8 - 0.1 + 1) / 2)
    assert metrics.der(0.9, 0.95, 0.5, 0.7) == 0.5


@given(rates, rates, rates, rates)
def test_der_stays_in_its_range(a, b, c, d):
    assert 0 <= metrics.der(a, b, c, d) <= 1


def test_relative_der_is_one_for_a_full_repair_of_a_weak_attack():
    assert metrics.relative_der(0.9, 0.9, 0.4, 0.0) == pytest.approx(1.0)
    assert metrics.der(0.9, 0.9, 0.4, 0.0) == pytest.approx(0.7)


def test_clopper_pearson_against_published_values():
    low, high = metrics.clopper_pearson(5, 20)
    assert (low, high) == (pytest.approx(0.0866, abs=1e-4), pytest.approx(0.4910, abs=1e-4))
    assert metrics.clopper_pearson(0, 0) == (0.0, 1.0)
    assert metrics.clopper_pearson(0, 10) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert metrics.clopper_pearson(10, 10)[1] == 1.0
    with pytest.raises(ValueError, match="outside"):
        metrics.clopper_pearson(3, 2)


def test_upper_bound_is_the_rule_of_three():
    assert metrics.upper_bound(0, 60) == pytest.approx(1 - 0.05 ** (1 / 60))
    assert metrics.upper_bound(0, 0) == 1.0
    assert metrics.upper_bound(5, 5) == 1.0


@given(st.integers(0, 200), st.integers(1, 200))
def test_upper_bound_is_above_the_share_and_grows(k, n):
    k = min(k, n)
    assert k / n <= metrics.upper_bound(k, n) <= 1
    assert metrics.upper_bound(k, n, 0.99) >= metrics.upper_bound(k, n, 0.9)


def test_paired_drop_counts_only_samples_that_changed():
    before = [True] * 90 + [False] * 10
    after = [True] * 85 + [False] * 5 + [True] * 3 + [False] * 7
    drop, upper = metrics.paired_drop(before, after)
    assert drop == pytest.approx(0.02)
    assert upper == pytest.approx(metrics.paired_drop_counts(5, 3, 100)[1])
    assert upper > drop
    assert upper < metrics.upper_bound(15, 100)


def test_paired_drop_without_change_shrinks_with_samples():
    bounds = [metrics.paired_drop([True] * n, [True] * n)[1] for n in (20, 100, 1000)]
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] == pytest.approx(1.6449**2 / (1000 + 1.6449**2), rel=1e-3)  # z^2 / (n + z^2)


def test_paired_drop_bound_holds_at_its_level():
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(400, 200, generator=generator)
    missed = 0
    for row in draws:
        lost, won = int((row < 0.06).sum()), int((row > 0.97).sum())
        missed += metrics.paired_drop_counts(lost, won, 200)[1] < 0.06 - 0.03
    assert missed / 400 <= 0.05


@pytest.mark.parametrize("level", [0.95, 0.975])
@pytest.mark.parametrize("won", [0.0, 0.01, 0.05, 0.1])
def test_paired_drop_bound_misses_no_more_often_than_its_level_says(won, level):
    """Exact: the probability that a true drop of 5 points is taken to be no larger than 5."""
    from scipy.stats import binom

    n, missed = 200, 0.0
    for c in range(60):
        below = [b for b in range(80) if metrics.paired_drop_counts(b, c, n, level)[1] <= 0.05]
        if below:
            missed += binom.pmf(c, n, won) * binom.cdf(max(below), n - c, (0.05 + won) / (1 - won))
    assert missed <= (1 - level) * 1.05


@pytest.mark.parametrize(("lost", "won", "upper"), [(5, 5, 5), (5, 0, 5), (0, 5, 5), (0, 0, 1), (3, 2, 5)])
def test_paired_drop_bound_at_the_ends(lost, won, upper):
    n = max(upper, lost + won)
    drop, high = metrics.paired_drop_counts(lost, won, n)
    assert drop <= high <= 1


@given(st.integers(0, 60), st.integers(0, 60), st.integers(121, 300))
def test_paired_drop_bound_grows_with_what_is_lost_and_falls_with_what_is_won(lost, won, n):
    upper = metrics.paired_drop_counts(lost, won, n)[1]
    assert metrics.paired_drop_counts(lost + 1, won, n)[1] > upper
    assert metrics.paired_drop_counts(lost, won + 1, n)[1] < upper
    assert metrics.paired_drop_counts(lost, won, n, 0.99)[1] > upper


def test_paired_drop_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="differ in number"):
        metrics.paired_drop([True], [True, False])
    with pytest.raises(ValueError, match="do not fit"):
        metrics.paired_drop_counts(3, 3, 5)
    drop, upper = metrics.paired_drop([], [])
    assert math.isnan(drop)
    assert upper == 1.0


def test_a_backward_pass_counts_three():
    start = metrics.sample_passes()
    metrics.count_passes(10)
    metrics.count_passes(10, backward=True)
    assert metrics.sample_passes() - start == 40
