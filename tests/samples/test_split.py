"""Splitting: disjoint, complete, stratified, groups whole, independent of the order of rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelmend.errors import SamplesError
from modelmend.samples.data import make_samples
from modelmend.samples.split import SHARES, Splits, split


def labelled(y, groups=None, seed=0):
    x = torch.rand(len(y), 2, generator=torch.Generator().manual_seed(seed))
    return make_samples(x, torch.as_tensor(y), source="m", groups=None if groups is None else torch.as_tensor(groups))


def test_shares_and_strata():
    samples = labelled(np.repeat(np.arange(5), 100))
    parts = split(samples, 0).to_lists()
    assert {name: len(rows) for name, rows in parts.items()} == {"fit": 100, "reward": 100, "select": 100, "gate": 200}
    for name, rows in parts.items():
        assert torch.bincount(samples.y[rows]).tolist() == [int(100 * SHARES[name])] * 5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=60, max_size=120), st.integers(0, 9))
def test_every_sample_once_and_groups_whole(rows, seed):
    samples = labelled([label for label, _ in rows], [group for _, group in rows])
    try:
        parts = split(samples, seed).to_lists()
    except SamplesError:
        return
    assert sorted(i for part in parts.values() for i in part) == list(range(len(rows)))
    owners = {name: set(samples.groups[r].tolist()) for name, r in parts.items()}
    assert sum(map(len, owners.values())) == len(set(samples.groups.tolist()))


def test_seed_decides_and_repeats():
    samples = labelled(np.arange(200) % 4)
    assert split(samples, 1).to_lists() == split(samples, 1).to_lists()
    assert split(samples, 1).to_lists() != split(samples, 2).to_lists()


def test_row_order_does_not_matter():
    samples = labelled(np.arange(200) % 4)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    shuffled = samples.subset(order)
    ids = {samples.ids[i] for i in split(samples, 1).gate.tolist()}
    assert ids == {shuffled.ids[i] for i in split(shuffled, 1).gate.tolist()}


def test_too_few_samples_are_refused():
    with pytest.raises(SamplesError, match="too few"):
        split(labelled([0, 1, 0]), 0)
    with pytest.raises(SamplesError, match="2 groups are too few"):
        split(labelled([0, 1] * 50, [0, 1] * 50), 0)


def test_lists_round_trip_and_repair_is_fit_and_reward():
    parts = split(labelled(np.arange(50) % 2), 0)
    back = Splits.from_lists(parts.to_lists())
    assert torch.equal(back.gate, parts.gate)
    assert sorted(parts.fit.tolist() + parts.reward.tolist()) == parts.repair.tolist()
