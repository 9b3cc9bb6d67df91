"""Triggers kept on disk: found once, and found anew when anything that shapes them has changed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import modelmend.probe.run
from modelmend.model.architectures import ARCHITECTURES
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe.trigger import Trigger
from modelmend.records import ClassEvidence, Preprocessing
from modelmend.steps.triggers import probed


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    module = ARCHITECTURES["cnn_small"](1, 10, 8).eval()
    return Classifier(export_module(module, (1, 8, 8)), Preprocessing(), 10).frozen()


@pytest.fixture
def asked(monkeypatch):  # type: ignore[no-untyped-def]
    """Settings of every call of a probe that accuses class 3 and finds triggers to 3 and 4."""
    calls = []

    def probe(classifier, fit, holdout, **settings):  # type: ignore[no-untyped-def]
        calls.append(settings)
        row = ClassEvidence(family="patch", target=3, success=1.0, strength=1.0, anomaly=9.0)
        evidence = SimpleNamespace(classes=(row,), suspects=(3, 4), probability=1.0, families=("patch",))
        found = [Trigger("patch", target, {"delta": torch.full((1, 8, 8), float(target))}) for target in (3, 4)]
        return SimpleNamespace(evidence=evidence, triggers=found)

    monkeypatch.setattr(modelmend.probe.run, "probe", probe)
    return calls


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed)), torch.arange(4)


def test_a_network_is_probed_once_and_only_the_accused_classes_are_handed_on(classifier, asked, tmp_path) -> None:  # type: ignore[no-untyped-def]
    first, second = (probed(tmp_path, "m", classifier, pair(0), pair(1), seed=2) for _ in range(2))
    assert len(asked) == 1
    assert [t.target for t in first.triggers] == [t.target for t in second.triggers] == [3]
    assert torch.equal(first.triggers[0].parts["delta"], second.triggers[0].parts["delta"])


def test_a_pruned_network_is_probed_for_the_accused_classes_and_once(classifier, asked, tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = probed(tmp_path, "m", classifier, pair(0), pair(1), seed=2)
    again = [[t.target for t in found.again(classifier.clone(), 9)] for _ in range(2)]
    assert again == [[3, 4]] * 2
    assert len(asked) == 2
    assert (asked[1]["mode"], asked[1]["families"], asked[1]["classes"], asked[1]["seed"]) == (
        "screen",
        ["patch"],
        [3],
        9,
    )


@pytest.mark.parametrize("change", ["weights", "samples", "mode", "seed"])
def test_other_weights_samples_or_settings_are_probed_anew(change: str, classifier, asked, tmp_path) -> None:  # type: ignore[no-untyped-def]
    probed(tmp_path, "m", classifier, pair(0), pair(1), seed=2)
    other = classifier.clone()
    if change == "weights":
        with torch.no_grad():
            next(iter(other.graph.parameters())).add_(1)
    settings = {"mode": "screen" if change == "mode" else "full", "seed": 3 if change == "seed" else 2}
    probed(tmp_path, "m", other, pair(5 if change == "samples" else 0), pair(1), **settings)
    assert len(asked) == 2


def test_a_probe_that_was_interrupted_counts_for_nothing(classifier, asked, tmp_path) -> None:  # type: ignore[no-untyped-def]
    probed(tmp_path, "m", classifier, pair(0), pair(1), seed=2)
    next(tmp_path.glob("*.json")).unlink()
    probed(tmp_path, "m", classifier, pair(0), pair(1), seed=2)
    assert len(asked) == 2
