from __future__ import annotations

from typing import Any

import pytest
from benchmarks.ablation import gap


def cell(case: str, whole: float, rule: float, drop: float = 0.0) -> dict[str, Any]:
    return {
        "case": case,
        "asr": 1.0,
        "acc": 0.9,
        "arms": {"whole": {"asr": whole, "drop": drop}, "best rule": {"asr": rule, "drop": 0.0}},
    }


def test_the_gap_is_that_of_the_means_and_its_interval_holds_the_difference() -> None:
    found = gap([cell("a", 0.0, 0.4), cell("b", 0.2, 0.6), cell("b", 0.1, 0.0, drop=0.1)])
    assert found is not None
    assert found.rule == pytest.approx(1 - (0.4 + 0.6 + 0.0) / 6)
    assert found.arm == pytest.approx(1 - (0.0 + 0.2 + 0.2) / 6)
    assert found.closed == pytest.approx(0.6)
    assert (found.no_worse, found.cases) == (2, 3)
    assert found.low <= found.arm - found.rule <= found.high and found.low < found.high


def test_clean_models_and_single_arms_do_not_count() -> None:
    clean = {**cell("a", 0.0, 0.0), "asr": None}
    alone = {**cell("b", 0.0, 0.0), "arms": {"whole": {"asr": 0.0, "drop": 0.0}}}
    assert gap([clean, alone]) is None
