"""Identity and storage of samples."""

import pytest
import torch

from modelmend.errors import SamplesError
from modelmend.samples.data import Samples, make_samples


@pytest.fixture
def samples():
    x = torch.randint(0, 256, (20, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float() / 255
    return make_samples(x, torch.arange(20) % 3, source="memory", classes=("a", "b", "c"))


def test_saved_samples_come_back_equal_and_small(samples, tmp_path):
    samples.save(tmp_path)
    back = Samples.load(tmp_path)
    assert torch.equal(back.x, samples.x)
    assert back.hash() == samples.hash()
    assert back.classes == samples.classes
    assert (tmp_path / "samples.safetensors").stat().st_size < samples.x.numel() * 2 + 1000


def test_values_between_bytes_survive(tmp_path):
    samples = make_samples(
        torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(1)), torch.zeros(5), source="m"
    )
    samples.save(tmp_path)
    assert torch.equal(Samples.load(tmp_path).x, samples.x)


def test_damaged_files_are_refused(samples, tmp_path):
    samples.save(tmp_path)
    (tmp_path / "samples.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(SamplesError, match="unreadable"):
        Samples.load(tmp_path)


def test_hash_follows_content_labels_and_order(samples):
    same = make_samples(samples.x.clone(), samples.y, source="elsewhere")
    assert same.hash() == samples.hash()
    pixel = samples.x.clone()
    pixel[3, 0, 0, 0] = 1 - pixel[3, 0, 0, 0]
    label = samples.y.clone()
    label[0] = 2
    others = [
        make_samples(pixel, samples.y, source="m"),
        make_samples(samples.x, label, source="m"),
        samples.subset(list(range(19, -1, -1))),
        samples.subset([0, 1]),
    ]
    assert len({s.hash() for s in [samples, *others]}) == 5


def test_subset_keeps_rows_together(samples):
    part = samples.subset(torch.tensor([4, 2]))
    assert part.ids == (samples.ids[4], samples.ids[2])
    assert torch.equal(part.x[1], samples.x[2])
    assert part.y.tolist() == [1, 2]


def test_unequal_lengths_are_refused(samples):
    with pytest.raises(SamplesError, match="differ in number"):
        Samples(samples.x, samples.y[:3], samples.ids, samples.groups, "m")
