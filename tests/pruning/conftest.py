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
from modelmend.redteam.digits import digits_recipe, digits_split
from modelmend.redteam.train import Infected, train

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


def make_case(arch: str, attack: str | None, seed: int, epochs: int) -> Case:
    torch.set_num_threads(1)
    split = digits_split(seed)
    recipe = digits_recipe(seed, attack).model_copy(update={"arch": arch, "epochs": epochs})
    infected = train(recipe, split.x_train, split.y_train, split.x_test, split.y_test)
    graph = export_module(infected.module.eval(), (1, 8, 8))
    classifier = Classifier(graph, infected.recipe.preprocessing, 10).frozen()
    parts = [(split.x_clean[i : i + 100], split.y_clean[i : i + 100]) for i in (0, 100, 200)]
    found = probe(classifier, parts[0], parts[1], seed=seed)
    return Case(infected, classifier, *parts, (split.x_test, split.y_test), found.triggers)


@pytest.fixture(scope="session")
def infected() -> Case:
    return make_case("resnet8", "blended", 4, 15)


@pytest.fixture(scope="session")
def clean() -> Case:
    return make_case("cnn_small", None, 2, 30)
