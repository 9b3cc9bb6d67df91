from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from modelmend.metrics import accuracy, attack_success
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe.run import probe
from modelmend.probe.trigger import Trigger
from modelmend.records import Preprocessing
from modelmend.redteam.digits import train_infected_digits

Pair = tuple[Tensor, Tensor]


def wrap(module: nn.Module, shape: tuple[int, ...], classes: int) -> Classifier:
    return Classifier(export_module(module.eval(), shape), Preprocessing(), classes).frozen()


@pytest.fixture
def small() -> Classifier:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(5 * 36, 4),
    )  # fmt: skip
    with torch.no_grad():
        norm = module[1]
        assert isinstance(norm, nn.BatchNorm2d)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(-1, 1)
    return wrap(module, (1, 8, 8), 4)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Case:
    classifier: Classifier
    fit: Pair
    reward: Pair
    select: Pair
    triggers: list[Trigger]
    test: Pair
    attacked: Tensor
    targets: Tensor

    def accuracy(self, classifier: Classifier) -> float:
        return accuracy(classifier.predict(self.test[0]), self.test[1])

    def asr(self, classifier: Classifier) -> float:
        return attack_success(classifier.predict(self.attacked), self.test[1], self.targets)


@pytest.fixture(scope="session")
def infected() -> Case:
    """A digits model with a blended backdoor, and probe triggers found without knowing it."""
    model, split = train_infected_digits(0, attack="blended")
    assert model.sealed is not None
    attack = model.sealed.open(purpose="final-measurement")
    classifier = Classifier(export_module(model.module, (1, 8, 8)), model.recipe.preprocessing, 10).frozen()
    parts = [(split.x_clean[i : i + 120], split.y_clean[i : i + 120]) for i in (0, 120, 240)]
    found = probe(classifier, parts[0], parts[1], mode="screen", seed=0)
    return Case(
        classifier, *parts, found.triggers, (split.x_test, split.y_test),
        attack.apply(split.x_test), attack.target(split.y_test) * torch.ones_like(split.y_test),
    )  # fmt: skip
