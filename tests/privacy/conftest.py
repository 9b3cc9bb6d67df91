from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.records import Preprocessing

Pair = tuple[Tensor, Tensor]
SHAPE = (1, 6, 6)


def make(n: int, seed: int) -> Pair:
    """Four overlapping classes: the class moves the mean of one quadrant, and a third of the labels is noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (n,), generator=generator)
    x = 0.5 + 0.12 * torch.randn(n, *SHAPE, generator=generator)
    for i in range(4):
        top, left = 3 * (i // 2), 3 * (i % 2)
        x[y == i, :, top : top + 3, left : left + 3] += 0.12
    noisy = torch.rand(n, generator=generator) < 0.33
    y = torch.where(noisy, torch.randint(0, 4, (n,), generator=generator), y)
    return x.clamp(0, 1), y


def fit(x: Tensor, y: Tensor, epochs: int, seed: int = 0) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Flatten(), nn.Linear(36, 128), nn.ReLU(), nn.Linear(128, 4))
        optimizer = torch.optim.Adam(module.parameters(), 5e-3)
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(50):
                loss = nn.functional.cross_entropy(module((x[index] - 0.5) / 0.12), y[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return Classifier(export_module(module.eval(), SHAPE), Preprocessing(mean=(0.5,), std=(0.12,)), 4).frozen()


@pytest.fixture(scope="session")
def members() -> Pair:
    return make(400, 1)


@pytest.fixture(scope="session")
def repair() -> Pair:
    return make(250, 2)


@pytest.fixture(scope="session")
def gate() -> Pair:
    return make(250, 3)


@pytest.fixture(scope="session")
def suspect(members: Pair) -> Classifier:
    """Trained long enough on its members to remember some."""
    return fit(*members, epochs=12)


@pytest.fixture(scope="session")
def overfitted(repair: Pair) -> Classifier:
    """A "repair" that learned the repair samples by heart."""
    return fit(*repair, epochs=25)
