from __future__ import annotations

import math

import numpy as np

from modelmend.probe.anomaly import anomaly_index, gap


def test_the_index_is_the_distance_from_the_median_in_mads() -> None:
    index = anomaly_index([0.0, 1.0, 2.0, 3.0, 12.0], noise=0.1)
    assert np.allclose(index, (np.array([0.0, 1, 2, 3, 12]) - 2) / 1.4826)


def test_equal_classes_are_no_outliers_of_noise() -> None:
    index = anomaly_index([1.0, 1.0, 1.0, 1.0, 1.05], noise=0.1)
    assert index.max() <= 0.5 + 1e-9


def test_two_classes_cannot_be_compared_and_unknown_stays_unknown() -> None:
    assert anomaly_index([1.0, 9.0], noise=0.1).tolist() == [0.0, 0.0]
    assert math.isnan(anomaly_index([1.0, 2.0, 3.0, math.nan], noise=0.1)[3])


def test_the_gap_is_between_the_first_and_the_second() -> None:
    assert gap([1.0, 4.0, 2.5]) == 1.5
    assert gap([1.0]) == 0.0
