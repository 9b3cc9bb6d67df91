from __future__ import annotations

import numpy as np
import pytest

from modelmend.metrics import auc
from modelmend.privacy.statistics import (
    Interval,
    Scores,
    adjusted_interval,
    auc_interval,
    bonferroni,
    curve,
    needed,
    paired_bootstrap,
    paired_difference,
    tpr_at_fpr,
    zero_leak_samples,
)


def _draw(seed: int, n: int = 150, shift: float = 0.5) -> Scores:
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, n), rng.normal(0, 1, n)


def test_auc_counts_pairs_and_halves_ties() -> None:
    a, b = np.array([3.0, 1.0, 2.0]), np.array([1.0, 0.0, 2.5, 2.0])
    pairs = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert auc(a, b) == pytest.approx(np.mean(pairs))
    assert curve(a, b).auc == pytest.approx(np.mean(pairs))


def test_delong_equals_its_definition() -> None:
    a, b = _draw(0, 40)
    psi = (a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])
    error = np.sqrt(psi.mean(1).var(ddof=1) / 40 + psi.mean(0).var(ddof=1) / 40)
    interval = auc_interval((a, b))
    assert interval.value == pytest.approx(psi.mean())
    assert interval.half == pytest.approx(1.959964 * error, rel=1e-5)


def test_delong_agrees_with_the_bootstrap_one_sample_and_paired() -> None:
    before, noise = _draw(1), _draw(2, shift=0.0)
    after = (before[0] + 0.5 * noise[0] + 0.3, before[1] + 0.5 * noise[1])
    constant = (np.zeros(150), np.zeros(150))
    one, boot = auc_interval(after), paired_bootstrap(constant, after, 0.95, seed=0)
    assert boot.value + 0.5 == pytest.approx(one.value)
    assert boot.half == pytest.approx(one.half, rel=0.15)
    delong, resampled = paired_difference(before, after, 0.95), paired_bootstrap(before, after, 0.95, seed=0)
    assert delong.value == pytest.approx(resampled.value)
    assert resampled.half == pytest.approx(delong.half, rel=0.15)
    unpaired = np.hypot(auc_interval(before).half, one.half)
    assert delong.half < 0.8 * unpaired


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    plain, adjusted, width = 0, 0, []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        known = rng.normal(size=200)
        score = known + 0.5 * rng.normal(size=200)
        scores, covariate = (score[:100], score[100:]), (known[:100], known[100:])
        first, second = auc_interval(scores, 0.9), adjusted_interval(scores, covariate, 0.9)
        plain += first.low <= 0.5 <= first.high
        adjusted += second.low <= 0.5 <= second.high
        width.append(second.half / first.half)
    assert 0.86 <= plain / 400 <= 0.94
    assert 0.86 <= adjusted / 400 <= 0.94
    assert np.mean(width) < 0.6


def test_the_adjustment_keeps_a_real_leak() -> None:
    rng = np.random.default_rng(0)
    known = rng.normal(size=2000)
    score = known + 0.5 * rng.normal(size=2000)
    score[:1000] += 0.4
    interval = adjusted_interval((score[:1000], score[1000:]), (known[:1000], known[1000:]))
    honest = auc(*(np.random.default_rng(1).normal([[0.4], [0.0]], np.hypot(1, 0.5), (2, 200_000))))
    assert interval.low < honest < interval.high
    assert interval.low > 0.5


def test_copies_of_a_sample_do_not_narrow_the_interval() -> None:
    a, b = _draw(3, 60)
    single = auc_interval((a, b))
    copied = (np.repeat(a, 5), np.repeat(b, 5))
    groups = np.repeat(np.arange(120), 5)
    assert auc_interval(copied).half < 0.6 * single.half
    assert auc_interval(copied, groups=groups).half == pytest.approx(single.half, rel=0.02)
    constant = (np.zeros(300), np.zeros(300))
    boot = paired_bootstrap(constant, copied, 0.95, seed=0, groups=groups)
    assert boot.half == pytest.approx(single.half, rel=0.15)


def test_perfect_scores_of_few_samples_are_not_certain() -> None:
    assert auc_interval((np.ones(10), np.zeros(10))).low < 0.95
    constant = auc_interval((np.ones(10), np.ones(10)))
    assert constant.low < 0.5 < constant.high


def test_tpr_at_one_percent_uses_the_strangers_threshold() -> None:
    strangers = np.arange(1000.0)
    assert tpr_at_fpr(np.array([989.0, 990.0, 2000.0, 989.5]), strangers).value == pytest.approx(0.75)
    nothing = tpr_at_fpr(np.zeros(100), strangers)
    assert nothing.value == 0 and nothing.high == pytest.approx(0.0362, abs=1e-3)


def test_the_stated_sample_size_gives_the_stated_power() -> None:
    n = zero_leak_samples(0.60, tests=2, power=0.9)
    level, passed = bonferroni(0.95, 2), 0
    for seed in range(400):
        passed += auc_interval(_draw(seed, n, shift=0.0), level).high <= 0.60
    assert 0.86 <= passed / 400 <= 0.94


def test_needed_samples_shrink_the_interval_to_the_limit() -> None:
    assert needed(Interval(0.55, 0.45, 0.65), 0.60, 100) in (400, 401)
    assert needed(Interval(0.60, 0.5, 0.7), 0.60, 100) is None
