from __future__ import annotations

from pathlib import Path

import pytest
import torch

from modelmend.errors import InputError, SamplesError
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe.choice import choose
from modelmend.probe.families import FAMILIES
from modelmend.probe.pictures import write_pictures
from modelmend.probe.run import ProbeResult, probe
from modelmend.records import Preprocessing

from .conftest import Case


@pytest.fixture(scope="module")
def found(infected: Case) -> ProbeResult:
    return probe(infected.classifier, infected.fit, infected.reward, seed=3)


def test_an_infected_model_is_found_with_its_target_class(infected: Case, found: ProbeResult) -> None:
    assert found.evidence.backdoor
    assert found.evidence.suspects[0] == infected.target


def test_a_clean_model_is_not_suspected(clean: Case) -> None:
    evidence = probe(clean.classifier, clean.fit, clean.reward, seed=3).evidence
    assert not evidence.backdoor


def test_the_candidate_handed_on_flips_samples_that_it_was_not_fitted_on(infected: Case, found: ProbeResult) -> None:
    x, y = infected.gate
    trigger = found.triggers[0]
    assert trigger.target == infected.target
    others = x[y != infected.target]
    assert float((infected.classifier.predict(trigger(others)) == infected.target).float().mean()) >= 0.6


def test_records_describe_the_triggers_in_order(found: ProbeResult) -> None:
    described = [(row["family"], row["target"]) for row in found.evidence.triggers]
    assert described == [(t.family, t.target) for t in found.triggers]
    assert found.evidence.passes > 0


def test_same_seed_same_result(infected: Case) -> None:
    runs = [
        probe(
            infected.classifier, infected.fit, infected.reward, mode="screen", families=["patch"], keep="warp", seed=s
        )
        for s in (5, 5, 6)
    ]
    first, second, third = (run.evidence.classes for run in runs)
    assert first == second
    assert first != third
    for one, two in zip(runs[0].triggers, runs[1].triggers, strict=True):
        assert all(torch.equal(one.state()[k], two.state()[k]) for k in one.state())


def test_the_suspect_is_left_as_it_was(infected: Case) -> None:
    before = {k: v.clone() for k, v in infected.classifier.state_dict().items()}
    gradients = [p.requires_grad for p in infected.classifier.parameters()]
    probe(infected.classifier, infected.fit, infected.reward, mode="screen", families=["unlearning"], classes=[1, 2, 3])
    assert all(torch.equal(v, before[k]) for k, v in infected.classifier.state_dict().items())
    assert gradients == [p.requires_grad for p in infected.classifier.parameters()]


def test_classes_asked_for_are_the_suspects_and_their_triggers_are_all_returned(infected: Case) -> None:
    families = ["patch", "additive"]
    result = probe(
        infected.classifier,
        infected.fit,
        infected.reward,
        mode="screen",
        families=families,
        keep="warp",
        classes=[2, 4],
    )
    assert {(t.family, t.target) for t in result.triggers} == {(f, c) for f in families for c in (2, 4)}


def test_the_kept_family_is_of_another_kind_than_every_used_one(infected: Case) -> None:
    used, kept = choose(infected.classifier, images=True)
    assert kept.kind not in {family.kind for family in used}
    with pytest.raises(InputError, match="another kind"):
        choose(infected.classifier, True, ["patch", "additive"], "patch")


def test_tables_are_probed_without_image_families() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    model = Classifier(export_module(module, (6,)), Preprocessing(kind="raw"), 4)
    x, y = torch.randn(60, 6) * 3, torch.arange(60) % 4
    result = probe(model, (x[:30], y[:30]), (x[30:], y[30:]), mode="screen")
    assert set(result.evidence.families) == {"patch", "additive", "feature"}
    assert not result.evidence.calibrated


def test_a_family_that_needs_batch_norm_gives_way_to_its_substitute(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    needing = replace(FAMILIES["warp"], name="needing", needs_batch_norm=True, substitute="unlearning")
    monkeypatch.setitem(FAMILIES, "needing", needing)
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    normed = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), plain[0], torch.nn.Linear(8, 3))
    without = Classifier(export_module(plain, (1, 4, 4)), Preprocessing(), 3)
    with_norm = Classifier(export_module(normed, (1, 4, 4)), Preprocessing(), 3)
    assert [f.name for f in choose(without, True, ["needing"], "patch")[0]] == ["unlearning"]
    assert [f.name for f in choose(with_norm, True, ["needing"], "patch")[0]] == ["needing"]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"families": ["nonsense"]}, InputError),
        ({"mode": "quick"}, InputError),
        ({"classes": [99]}, InputError),
        ({"keep": "patch"}, InputError),
    ],
)
def test_unusable_options_are_refused(infected: Case, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        probe(infected.classifier, infected.fit, infected.reward, **options)  # type: ignore[arg-type]


def test_too_few_samples_are_refused(infected: Case) -> None:
    x, y = infected.fit
    with pytest.raises(SamplesError):
        probe(infected.classifier, (x[:1], y[:1]), infected.reward)


def test_pictures_are_written_for_images(tmp_path: Path, found: ProbeResult, infected: Case) -> None:
    from PIL import Image

    files = write_pictures(tmp_path, found.triggers, infected.reward[0])
    assert len(files) == len(found.triggers)
    with Image.open(files[0]) as image:
        assert image.width == 4 * 64 and image.height == 3 * 64
    assert write_pictures(tmp_path, found.triggers, torch.rand(4, 6)) == []
