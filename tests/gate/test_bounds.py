import pytest

from modelmend.gate.checks.bounds import Unusable, drop_upper, proportion_upper
from modelmend.metrics import paired_drop_counts, upper_bound
from modelmend.records import Measured


def test_a_proportion_is_bounded_at_the_level_asked_for():
    m = Measured(value=0.1, high=upper_bound(10, 100, 0.95), n=100, level=0.95)
    assert proportion_upper(m, 0.99) == upper_bound(10, 100, 0.99) > m.high


def test_a_reported_upper_end_that_is_larger_stays():
    assert proportion_upper(Measured(value=0.1, high=0.6, n=100), 0.95) == 0.6


def test_a_mean_over_triggers_counts_as_the_next_whole_number():
    m = Measured(value=0.1049, high=0.11, n=100)
    assert proportion_upper(m, 0.95) == upper_bound(11, 100, 0.95)


@pytest.mark.parametrize(
    "m",
    [
        None,
        Measured(),
        Measured(value=0.1, n=100),
        Measured(value=0.1, high=0.2),
        Measured(value=0.1, high=0.2, n=0),
        Measured(value=float("nan"), high=0.2, n=10),
        Measured(value=0.1, high=float("nan"), n=10),
        Measured(value=0.3, high=0.2, n=10),
        Measured(value=-0.1, high=0.2, n=10),
        Measured(value=0.1, high=0.2, n=100, counts=(1,)),
        Measured(value=0.1, high=0.2, n=100, counts=(10, 0)),
    ],
)
def test_an_incomplete_or_contradictory_proportion_is_unusable(m):
    with pytest.raises(Unusable):
        proportion_upper(m, 0.95)


def test_a_drop_is_bounded_at_the_level_asked_for():
    m = Measured(value=0.01, high=0.02, n=200, counts=(3, 1))
    assert drop_upper(m, 0.99) == paired_drop_counts(3, 1, 200, 0.99)[1]


def test_a_reported_upper_end_of_a_drop_that_is_larger_stays():
    assert drop_upper(Measured(value=0.01, high=0.4, n=200, counts=(3, 1)), 0.95) == 0.4


def test_a_drop_without_counts_needs_the_level():
    m = Measured(value=0.01, high=0.03, n=200, level=0.975)
    assert drop_upper(m, 0.975) == 0.03
    with pytest.raises(Unusable, match="level"):
        drop_upper(m, 0.99)


@pytest.mark.parametrize(
    "m",
    [
        None,
        Measured(value=0.01, high=0.03, n=200, counts=(3, 0)),
        Measured(value=0.01, high=0.03, n=200, counts=(3,)),
        Measured(value=0.01, high=0.03, n=200, counts=(202, 200)),
        Measured(value=0.01, high=0.03, n=200, counts=(-1, -3)),
        Measured(value=0.05, high=0.03, n=200, level=0.99),
        Measured(value=float("inf"), high=0.03, n=200),
    ],
)
def test_an_incomplete_or_contradictory_drop_is_unusable(m):
    with pytest.raises(Unusable):
        drop_upper(m, 0.95)
