from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.privacy.audit import PrivacyConfig, audit
from modelmend.privacy.likeness import excess, rank_one, structural_similarity
from modelmend.records import Preprocessing

from .conftest import Pair

PERSONS = PrivacyConfig(person_classes=True, inversion_steps=60, defences=False)


def _faces(n: int, seed: int) -> Pair:
    """Eight "persons", each a smooth pattern of its own, with noise."""
    patterns = torch.nn.functional.interpolate(
        torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)), size=10, mode="bilinear"
    )
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 8
    return (patterns[y] + 0.08 * torch.randn(n, 1, 10, 10, generator=generator)).clamp(0, 1), y


def _classifier(train: Pair | None) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Flatten(), nn.Linear(100, 8))
        if train is not None:
            optimizer = torch.optim.Adam(module.parameters(), 1e-2)
            for _ in range(60):
                loss = nn.functional.cross_entropy(module(train[0]), train[1])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return Classifier(export_module(module.eval(), (1, 10, 10)), Preprocessing(), 8).frozen()


@pytest.fixture(scope="module")
def sides() -> tuple[Pair, Pair]:
    return _faces(160, 1), _faces(160, 2)


def test_a_model_of_persons_gives_their_class_away(sides: tuple[Pair, Pair]) -> None:
    model = _classifier(sides[0])
    report = audit(model, model, None, None, *sides, config=PERSONS)
    found = {(f.gate, f.subject): f for f in report.findings}
    assert found["G5", "classes"].outcome == "fail"
    assert found["G6", "classes"].outcome == "pass"  # the class leaks, no single photo does
    rows = [row for row in report.attacks if row["subject"] == "classes"]
    assert {row["attack"] for row in rows} == {"inversion: pixels", "inversion: linear prior"}
    assert all(len(row["evaluators"]) == 3 for row in rows)
    assert max(row["rank_1"] for row in rows) > 0.8


def test_an_untrained_model_gives_no_class_away(sides: tuple[Pair, Pair]) -> None:
    model = _classifier(None)
    report = audit(model, model, None, None, *sides, config=PERSONS)
    found = {(f.gate, f.subject): f for f in report.findings}
    assert found["G5", "classes"].outcome in ("pass", "inconclusive")
    assert found["G5", "classes"].measured.value is not None and found["G5", "classes"].measured.value < 0.5


def test_tables_have_no_inversion() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(40, 5, generator=generator), torch.arange(40) % 2
    module = nn.Sequential(nn.Linear(5, 2)).eval()
    model = Classifier(export_module(module, (5,)), Preprocessing(kind="raw"), 2).frozen()
    found = {
        (f.gate, f.subject): f for f in audit(model, model, None, None, (x, y), (x + 1, y), config=PERSONS).findings
    }
    assert found["G5", "classes"].outcome == "not_run" and "not images" in found["G5", "classes"].reason


def test_similarity_is_one_with_itself_and_lower_with_noise(images: Tensor) -> None:
    noisy = (images + 0.3 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    same, other = structural_similarity(images, images), structural_similarity(images, noisy)
    torch.testing.assert_close(same.diagonal(), torch.ones(len(images)))
    assert bool((other.diagonal() < 0.9).all())


def test_a_reconstruction_that_is_a_member_shows_as_excess(sides: tuple[Pair, Pair]) -> None:
    members, others = sides
    own = (members[0][:8], members[1][:8])
    assert (excess(own[0], own[1], own, others) > 0.05).all()
    assert abs(excess(others[0][:8], others[1][:8], members, (others[0][8:], others[1][8:])).mean()) < 0.05
    assert rank_one(*own, *others) == 1.0


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 1, 10, 10, generator=torch.Generator().manual_seed(0))
