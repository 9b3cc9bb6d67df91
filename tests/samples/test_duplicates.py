"""Near-duplicates: found when changed a little, not when merely alike; joined over groups; not added twice."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from modelmend.samples.data import make_samples
from modelmend.samples.duplicates import merge_groups, near_pairs, unseen


@pytest.fixture
def digits():
    loaded = load_digits()
    return make_samples(
        torch.tensor(loaded.images[:400]).float()[:, None] / 16, torch.tensor(loaded.target[:400]), source="d"
    )


def smooth(n=40, seed=0):
    """Images with content at large scale, as photographs have."""
    coarse = torch.rand(n, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (32, 32), mode="bicubic").clamp(0, 1)


def jpeg(x):
    out = []
    for pixels in (x * 255).round().byte():
        stream = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=75)
        out.append(torch.from_numpy(np.array(Image.open(stream)).transpose(2, 0, 1).astype(np.float32) / 255))
    return torch.stack(out)


@pytest.mark.parametrize(
    "change", [jpeg, lambda x: x * 0.8 + 0.1, lambda x: x**1.2, lambda x: x], ids=["jpeg", "light", "gamma", "same"]
)
def test_changed_copies_are_found(change):
    x = smooth()
    pairs = set(near_pairs(torch.cat([x, change(x)])))
    assert {(i, i + 40) for i in range(40)} <= pairs
    assert len(pairs) == 40


def test_different_digits_are_not_duplicates(digits):
    assert len(list(near_pairs(digits.x))) <= 4


def test_blank_images_pair_with_nothing():
    assert list(near_pairs(torch.zeros(5, 1, 8, 8))) == []


def test_pairs_across_blocks_are_found(monkeypatch):
    monkeypatch.setattr("modelmend.samples.duplicates._BLOCK", 7)
    x = smooth()
    assert {(i, i + 40) for i in range(40)} <= set(near_pairs(torch.cat([x, x])))


def test_groups_are_joined_transitively():
    samples = make_samples(torch.rand(6, 2), torch.zeros(6), source="m", groups=torch.tensor([0, 0, 1, 2, 3, 4]))
    assert merge_groups(samples, iter([(1, 2), (4, 5)])).tolist() == [0, 0, 0, 1, 2, 2]


def test_equal_samples_share_a_group():
    x = torch.rand(3, 2)
    samples = make_samples(torch.cat([x, x]), torch.zeros(6), source="m", groups=torch.arange(6))
    assert merge_groups(samples, iter(())).tolist() == [0, 1, 2, 0, 1, 2]


def test_only_unseen_samples_are_added():
    x, new = smooth(), smooth(10, seed=1)
    known = make_samples(x, torch.zeros(40), source="k")
    more = make_samples(torch.cat([x[:5], new, x[5:10] * 0.9]), torch.zeros(20), source="m")
    assert unseen(known, more).tolist() == list(range(5, 15))
    raw = make_samples(torch.rand(4, 3), torch.zeros(4), source="r", kind="raw")
    assert unseen(raw.subset([0, 1]), raw).tolist() == [2, 3]
