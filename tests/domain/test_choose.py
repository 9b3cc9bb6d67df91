"""Choosing the few: covering, balanced, without copies, errors and outliers."""

import pytest
import torch

from modelmend.domain.choose import choose, eligible, facility_location, standardised
from modelmend.domain.signals import observe
from modelmend.errors import SamplesError
from modelmend.samples.data import make_samples


def coverage(features, y, chosen):
    """Mean distance of every sample to the nearest chosen one of its class; less is better."""
    total = 0.0
    for label in y.unique().tolist():
        mine = [i for i in chosen.tolist() if y[i] == label]
        rows = (y == label).nonzero().flatten()
        apart = torch.cdist(features[rows], features[mine]) if mine else torch.full((len(rows), 1), 100.0)
        total += float(apart.min(1).values.sum())
    return total / len(y)


@pytest.mark.parametrize("k", [20, 60])
def test_covers_better_than_balanced_random_choices(classifier, held_out, k):
    features = standardised(observe(classifier, held_out.x).features)
    ours = coverage(features, held_out.y, choose(classifier, held_out, k, seed=0))
    generator = torch.Generator().manual_seed(0)
    random = []
    for _ in range(20):
        rows = [
            (held_out.y == c)
            .nonzero()
            .flatten()[torch.randperm(int((held_out.y == c).sum()), generator=generator)[: k // 10]]
            for c in range(10)
        ]
        random.append(coverage(features, held_out.y, torch.cat(rows)))
    assert ours < min(random)


def test_classes_are_balanced(classifier, held_out):
    counts = torch.bincount(held_out.y[choose(classifier, held_out, 43, seed=0)], minlength=10)
    assert int(counts.sum()) == 43
    assert int(counts.max() - counts.min()) <= 1


def test_a_small_class_gives_what_it_has(classifier, held_out):
    keep = torch.cat([(held_out.y != 3).nonzero().flatten(), (held_out.y == 3).nonzero().flatten()[:5]])
    pool = held_out.subset(keep)
    counts = torch.bincount(pool.y[choose(classifier, pool, 100, seed=0)], minlength=10)
    assert 0 < int(counts[3]) <= 5
    assert int(counts.sum()) == 100


def test_copies_and_near_copies_are_chosen_once(classifier, held_out):
    x = held_out.x[:60]
    pool = make_samples(torch.cat([x, x, x * 0.97]), held_out.y[:60].repeat(3), source="pool")
    chosen = choose(classifier, pool, 30, seed=0)
    assert len({int(i) % 60 for i in chosen}) == 30


def test_mislabelled_unsure_and_outlying_samples_are_left_out(classifier, held_out):
    wrong = held_out.y.clone()
    wrong[:40] = (wrong[:40] + 1) % 10
    x = held_out.x.clone()
    x[40:60] = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pool = make_samples(x, wrong, source="pool")
    chosen = choose(classifier, pool, 300, seed=0)
    assert not set(chosen.tolist()) & set(range(40))
    assert len(set(chosen.tolist()) & set(range(40, 60))) <= 1
    signals = observe(classifier, pool.x)
    sure, best = signals.logits.softmax(1).max(1)
    assert bool((best[chosen] == pool.y[chosen]).all())
    fit = eligible(pool, signals.logits, signals.features)
    left_out = (best == pool.y) & ~torch.isin(torch.arange(len(pool)), fit)
    assert float(sure[fit].mean()) > float(sure[left_out].mean())


def test_seed_repeats(classifier, held_out):
    assert torch.equal(choose(classifier, held_out, 33, seed=1), choose(classifier, held_out, 33, seed=1))


def test_too_small_a_pool_is_an_error(classifier, held_out):
    with pytest.raises(SamplesError, match="fit to be chosen, 60 are wanted"):
        choose(classifier, held_out.subset(range(60)), 60, seed=0)
    with pytest.raises(SamplesError, match="choose 0"):
        choose(classifier, held_out, 0, seed=0)


def test_facility_location_takes_the_medoid_then_the_far_cluster():
    points = torch.tensor([[0.0], [1.0], [2.0], [50.0], [51.0], [52.0], [53.0]])
    first, second = facility_location(points, 2).tolist()
    assert first in {3, 4}
    assert second == 1
    assert sorted(facility_location(points, 7).tolist()) == list(range(7))
