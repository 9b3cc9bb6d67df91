from __future__ import annotations

import pytest

from modelmend.probe.accused import accused
from modelmend.probe.calibration import probability
from modelmend.probe.score import support
from modelmend.records import ClassEvidence, Evidence

FAMILIES = ("patch", "additive", "warp", "spectral", "wave", "feature", "unlearning", "margin")


def rows(anomalies: dict[int, float], families: tuple[str, ...] = FAMILIES) -> tuple[ClassEvidence, ...]:
    """Evidence in which every family finds the same anomaly, and a strength to match, for each of ten classes."""
    return tuple(
        ClassEvidence(
            family=family,
            target=target,
            success=0.8,
            strength=0.1 * anomalies.get(target, 0.0),
            anomaly=anomalies.get(target, 0.0),
        )
        for family in families
        for target in range(10)
    )


def evidence(anomalies: dict[int, float], chance: float) -> Evidence:
    suspects = tuple(sorted(range(10), key=lambda t: -anomalies.get(t, 0.0))[:3])
    return Evidence(
        mode="full",
        backdoor=chance >= 0.5,
        probability=chance,
        suspects=suspects,
        families=FAMILIES[:5],
        kept_family="unlearning",
        classes=rows(anomalies),
        seed=0,
        seconds=0.0,
        passes=0.0,
    )


def test_a_class_that_stands_out_is_accused_alone() -> None:
    assert accused(evidence({3: 8.0, 5: 2.5}, 0.99)) == (3,)


def test_where_two_suspects_stand_side_by_side_both_are_accused() -> None:
    assert accused(evidence({3: 2.6, 5: 2.4}, 0.7)) == (3, 5)


def test_a_model_that_looks_clean_has_one_suspect_at_most() -> None:
    assert accused(evidence({3: 1.1, 5: 1.0}, 0.1)) == (3,)


def test_more_evidence_never_lowers_the_probability() -> None:
    chances = [probability(rows({3: size})).value for size in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)]
    assert chances == sorted(chances)
    assert chances[0] < 0.5 < chances[-1]


def test_the_probability_counts_as_calibrated_only_with_the_families_of_the_calibration() -> None:
    assert probability(rows({3: 4.0})).calibrated
    assert not probability(rows({3: 4.0}, FAMILIES[:2])).calibrated


def test_families_that_agree_weigh_as_much_as_one_that_is_far_ahead() -> None:
    def named(classes: dict[str, int], strength: float) -> tuple[ClassEvidence, ...]:
        return tuple(
            ClassEvidence(family=f, target=t, success=0.8, strength=strength * (t == classes[f]), anomaly=1.0)
            for f in FAMILIES
            for t in range(10)
        )

    agreeing = support(named(dict.fromkeys(FAMILIES, 4), 0.3))
    scattered = support(named({f: i for i, f in enumerate(FAMILIES)}, 0.3))
    assert max(agreeing, key=lambda t: agreeing[t]) == 4
    assert agreeing[4] == pytest.approx(sum(scattered.values()))
    assert max(scattered.values()) < 0.3 * agreeing[4]
