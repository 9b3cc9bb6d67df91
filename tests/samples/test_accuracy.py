"""The accuracy check: chance is refused, the likely cause is named, nothing is changed."""

import pytest
import torch

from modelmend.errors import SamplesError
from modelmend.records import Preprocessing
from modelmend.samples.accuracy import check_accuracy
from modelmend.samples.data import make_samples


class Thresholds:
    """Classes 0..3 by the mean of the model input, cut at the quartiles seen in training; 'trained' with ``meant``."""

    num_classes = 4

    def __init__(self, x, meant, told):
        self.preprocessing = meant
        self.cuts = self.inputs(x).flatten(1).mean(1).quantile(torch.tensor([0.25, 0.5, 0.75]))
        self.labels = self.predict(x)
        self.preprocessing = told

    def inputs(self, x):
        p = self.preprocessing
        low, high = p.input_range
        mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (p.mean, p.std))
        return (x * (high - low) + low - mean) / std

    def predict(self, x, batch_size=256):
        return torch.bucketize(self.inputs(x).flatten(1).mean(1), self.cuts)


@pytest.fixture
def x():
    base = torch.linspace(0.2, 0.8, 200)[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    return base.reshape(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()


def test_right_preprocessing_gives_the_accuracy(x):
    model = Thresholds(x, Preprocessing(), Preprocessing())
    y = model.labels.clone()
    y[:20] = (y[:20] + 1) % 4
    assert check_accuracy(model, make_samples(x, y, source="m")) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("meant", "named"),
    [
        (Preprocessing(input_range=(0.0, 255.0)), "--input-range 0,255"),
        (Preprocessing(mean=(0.5,), std=(0.5,)), "--mean 0.5 --std 0.5"),
        (Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)), "--mean 0.485,0.456,0.406"),
    ],
)
def test_likely_preprocessing_is_named_and_not_applied(x, meant, named):
    told = Preprocessing(input_range=(5.0, 6.0))
    model = Thresholds(x, meant, told)
    with pytest.raises(SamplesError, match="near chance") as caught:
        check_accuracy(model, make_samples(x, model.labels, source="m"))
    assert named in caught.value.fix
    assert "100%" in caught.value.fix
    assert model.preprocessing is told


def test_other_label_order_is_named(x):
    model = Thresholds(x, Preprocessing(), Preprocessing())
    shuffled = torch.tensor([1, 2, 3, 0])[model.labels]
    with pytest.raises(SamplesError) as caught:
        check_accuracy(model, make_samples(x, shuffled, source="m"))
    assert "another order" in caught.value.fix
    assert "1 -> 0" in caught.value.fix


def test_noise_labels_get_the_general_advice(x):
    model = Thresholds(x, Preprocessing(), Preprocessing())
    y = torch.randint(0, 4, (200,), generator=torch.Generator().manual_seed(1))
    with pytest.raises(SamplesError, match="near chance") as caught:
        check_accuracy(model, make_samples(x, y, source="m"))
    assert "--mean" in caught.value.fix
    assert "would be" not in caught.value.fix


def test_always_the_largest_class_is_chance(x):
    model = Thresholds(x, Preprocessing(), Preprocessing(input_range=(50.0, 51.0)))
    y = torch.full((200,), 3)
    y[:40] = model.labels[:40] % 3
    with pytest.raises(SamplesError, match=r"80%.*near chance"):
        check_accuracy(model, make_samples(x, y, source="m"))
