"""Small networks trained on digits in a second or two, with and without batch norm."""

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.records import Preprocessing
from modelmend.samples.data import make_samples


def train(x, y, batch_norm):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d if batch_norm else lambda width: nn.Identity()
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), norm(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2), norm(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(net.parameters(), 5e-3)
    for _ in range(20):
        for rows in torch.randperm(len(x)).split(64):
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return Classifier(export_module(net.eval(), (1, 8, 8)), Preprocessing(), 10)


@pytest.fixture(scope="session")
def digits():
    torch.set_num_threads(1)
    loaded = load_digits()
    x = torch.tensor(loaded.images, dtype=torch.float32)[:, None] / 16
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    return x[order], torch.tensor(loaded.target)[order]


@pytest.fixture(scope="session", params=[True, False], ids=["bn", "plain"])
def classifier(digits, request):
    x, y = digits
    return train(x[:1000], y[:1000], request.param)


@pytest.fixture(scope="session")
def held_out(digits):
    x, y = digits
    return make_samples(x[1000:], y[1000:], source="digits")
