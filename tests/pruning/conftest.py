"""One small infected network and one clean one, with candidate triggers, for all pruning tests."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe.run import probe
from modelmend.probe.trigger import Trigger
from modelmend.redteam.digits import train_infected_digits
from modelmend.redteam.train import Infected

Labelled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """A trained network, its clean samples and the triggers that the probe found."""

    infected: Infected
    classifier: Classifier
    fit: Labelled
    reward: Labelled
    select: Labelled
    test: Labelled
    triggers: list[Trigger]


def make_case(attack: str | None, seed: int) -> Case:
    torch.set_num_threads(1)
    infected, split = train_infected_digits(seed, attack=attack)
    graph = export_module(infected.module.eval(), (1, 8, 8))
    classifier = Classifier(graph, infected.recipe.preprocessing, 10).frozen()
    parts = [(split.x_clean[i : i + 100], split.y_clean[i : i + 100]) for i in (0, 100, 200)]
    found = probe(classifier, parts[0], parts[1], seed=seed)
    return Case(infected, classifier, *parts, (split.x_test, split.y_test), found.triggers)


@pytest.fixture(scope="session")
def infected() -> Case:
    return make_case("blended", 3)


@pytest.fixture(scope="session")
def clean() -> Case:
    return make_case(None, 2)
