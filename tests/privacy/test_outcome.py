from __future__ import annotations

import pytest

from modelmend.privacy.outcome import finding, judge
from modelmend.privacy.statistics import Interval


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (0.45, 0.60, "pass"),
        (0.45, 0.61, "inconclusive"),
        (0.61, 0.75, "warn"),
        (0.61, 0.76, "inconclusive"),
        (0.76, 0.90, "fail"),
        (0.50, 0.90, "inconclusive"),
    ],
)
def test_pass_and_fail_both_need_proof(low: float, high: float, outcome: str) -> None:
    assert judge(Interval((low + high) / 2, low, high), 0.60, 0.75) == outcome


def test_an_undecided_finding_says_how_many_samples_would_decide() -> None:
    found = finding(
        "G1", "repair", Interval(0.55, 0.45, 0.65), limit=0.60, fail_above=0.75, n=100, level=0.95, method="m",
        text="AUC", absolute=False,
    )  # fmt: skip
    assert found.outcome == "inconclusive"
    assert found.needed in (400, 401)
    assert str(found.needed) in found.reason
