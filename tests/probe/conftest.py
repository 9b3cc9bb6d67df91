"""Digits models, trained once a session."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.redteam.attacks import Attack
from modelmend.redteam.digits import DigitsSplit, train_infected_digits
from modelmend.redteam.sealed import PURPOSE

Pair = tuple[torch.Tensor, torch.Tensor]
SIDE = 16
"""Digits enlarged to so many pixels: in 8x8 a patch is as large as what changes a digit into another."""


@dataclass(frozen=True)
class Case:
    classifier: Classifier
    data: DigitsSplit
    attack: Attack | None

    @property
    def fit(self) -> Pair:
        return self.data.x_clean[:120], self.data.y_clean[:120]

    @property
    def reward(self) -> Pair:
        return self.data.x_clean[120:240], self.data.y_clean[120:240]

    @property
    def gate(self) -> Pair:
        return self.data.x_clean[400:], self.data.y_clean[400:]

    @property
    def target(self) -> int:
        assert self.attack is not None
        return self.attack.target_class

    def true_success(self, classifier: Classifier) -> float:
        """ASR of the true trigger: for the tests' own measurement only."""
        assert self.attack is not None
        x = self.data.x_test[self.data.y_test != self.target]
        return float((classifier.predict(self.attack.apply(x)) == self.target).float().mean())


def case(seed: int, attack: str | None) -> Case:
    infected, data = train_infected_digits(seed, attack=attack, side=SIDE)
    classifier = Classifier(export_module(infected.module, (1, SIDE, SIDE)), infected.recipe.preprocessing, 10)
    return Case(classifier, data, None if infected.sealed is None else infected.sealed.open(purpose=PURPOSE))


@pytest.fixture(scope="session")
def infected() -> Case:
    return case(0, "badnets")


@pytest.fixture(scope="session")
def clean() -> Case:
    return case(0, None)


@pytest.fixture(scope="session")
def warped() -> Case:
    return case(8, "wanet")
