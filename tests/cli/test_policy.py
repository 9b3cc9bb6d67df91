"""``modelmend policy``: gate policies are shown or checked, pruning policies are trained on a zoo."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from rich.console import Console
from tests.cli.test_main import run

import modelmend.probe.run
from modelmend.cli.pretraining import train_command
from modelmend.cli.pupils import TrainOptions, choose_records, open_pupil
from modelmend.errors import InputError
from modelmend.gate.policy import load_policy as load_gate_policy
from modelmend.progress import silent
from modelmend.pruning.pretrain import load_policy
from modelmend.redteam.digits import train_infected_digits
from modelmend.redteam.store import ZooRecord, read_records, write_model
from modelmend.redteam.train import Recipe

DEFAULT = Path(load_gate_policy.__code__.co_filename).parent / "policies" / "default.yaml"


@pytest.mark.parametrize("words", [(), ("default",), ("show",), ("show", "default")])
def test_show_may_go_unnamed(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("policy", *words, capsys=capsys) == (0, DEFAULT.read_text(encoding="utf-8"))


def test_a_file_is_checked_and_samples_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.yaml").write_text("name: own\n")
    assert "policy 'own' is valid" in run("policy", str(tmp_path / "own.yaml"), capsys=capsys)[1]
    assert "gate samples" in run("policy", "--samples", capsys=capsys)[1]
    code, text = run("policy", "trian", capsys=capsys)
    assert code == 2 and "default, strict" in text


def test_help_lists_both(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run("policy", "--help", capsys=capsys)
    assert code == 0 and "show" in text and "train" in text


def test_a_pruning_policy_needs_the_in_process_runner(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run("repair", "m.pt2", "--samples", "s", "--pruning-policy", "p", capsys=capsys)
    assert code == 2 and "in-process" in text


@pytest.mark.parametrize("broken", ["missing", "other attributes"])
def test_an_unusable_pruning_policy_is_refused_before_the_run(
    broken: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("m.pt2", "s.npz"):
        (tmp_path / name).write_bytes(b"x")
    if broken == "other attributes":
        about = {"config": {}, "attributes": ["colour"], "edge_features": 3, "recipe": {}}
        (tmp_path / "policy.json").write_text(json.dumps(about))
    paths = (str(tmp_path / "m.pt2"), "--samples", str(tmp_path / "s.npz"), "--pruning-policy", str(tmp_path))
    code, text = run("repair", *paths, "--runner", "in-process", capsys=capsys)
    assert code == 2 and "policy.json" in text and "modelmend policy train" in text


def record(attack: str | None, arch: str = "resnet8", dataset: str = "gtsrb", group: str = "calibration") -> ZooRecord:
    """A finished model as far as choosing goes."""
    return ZooRecord(
        name=f"{dataset}-{arch}-{attack}",
        group=group,
        recipe=Recipe(dataset=dataset, arch=arch, attack=attack, rate=0.1, seed=0),
        input_shape=(3, 32, 32),
        num_classes=43,
        train_samples=1,
        test_samples=1,
        acc=0.9,
        infected=attack is not None,
        weights="w.safetensors",
        weights_hash="sha256:0",
        seconds=1.0,
        threads=1,
        torch_version="2",
    )


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A zoo of records."""
    for one in (record("badnets"), record("wanet", "cnn_small"), record("lf", dataset="cifar10_jpeg"), record(None)):
        one.write(tmp_path / f"{one.name}.json")
    measured = record("sig", group="small")
    measured.write(tmp_path / f"{measured.name}.json")
    return tmp_path


def test_only_infected_models_of_the_group_are_learned_on(shelf: Path) -> None:
    assert [r.recipe.attack for r in choose_records(shelf, "calibration", ())] == ["lf", "wanet", "badnets"]


@pytest.mark.parametrize(
    ("left_out", "kept"), [("wanet", ["lf", "badnets"]), ("cnn_small", ["lf", "badnets"]), ("gtsrb", ["lf"])]
)
def test_attacks_architectures_and_data_sets_can_be_held_out(shelf: Path, left_out: str, kept: list[str]) -> None:
    assert [r.recipe.attack for r in choose_records(shelf, "calibration", (left_out,))] == kept


@pytest.mark.parametrize(
    ("group", "left_out", "field", "fix"),
    [
        ("full", (), "group", "calibration, small"),
        ("calibration", ("wanette",), "leave-out", "wanet"),
        ("calibration", ("resnet8", "cnn_small"), "leave-out", "less"),
    ],
)
def test_what_cannot_be_chosen_names_the_field_and_the_fix(
    shelf: Path, group: str, left_out: tuple[str, ...], field: str, fix: str
) -> None:
    with pytest.raises(InputError) as error:
        choose_records(shelf, group, left_out)
    assert (error.value.where, error.value.field) == (str(shelf), field)
    assert fix in str(error.value.fix)


def test_a_folder_without_models_says_how_to_train_some(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--zoo", str(tmp_path), "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    code, text = run("policy", "train", *options, capsys=capsys)
    assert code == 2 and "redteam.zoo" in text
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def small_zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One infected model of 8x8 digits, stored as a Fashion-MNIST model beside a test file of digits."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("zoo")
    infected, split = train_infected_digits(0)
    recipe = infected.recipe.model_copy(update={"dataset": "fashion_mnist"})
    infected = dataclasses.replace(infected, recipe=recipe)
    write_model(folder, infected, name="one", group="calibration", sizes=(900, 177), shape=(1, 8, 8), classes=10)
    pictures = []
    for image in (split.x_clean[:, 0] * 255).round().to(torch.uint8).numpy():
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "png")
        pictures.append(stream.getvalue())
    frame = pd.DataFrame({"image": pictures, "label": split.y_clean.numpy()})
    frame.to_parquet(folder / "fashion_mnist_test.parquet")
    return folder


def test_weights_that_are_not_those_of_the_record_are_refused(small_zoo: Path, tmp_path: Path) -> None:
    (one,) = read_records(small_zoo)
    (tmp_path / one.weights).write_bytes((small_zoo / one.weights).read_bytes()[:-4] + b"abcd")
    with pytest.raises(InputError) as error:
        open_pupil(TrainOptions(tmp_path, small_zoo, tmp_path), one, 1 << 20, silent)
    assert error.value.field == "weights_hash" and error.value.where == str(tmp_path / one.weights)


def test_a_policy_is_trained_and_a_second_run_does_not_probe_again(
    small_zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, asked = modelmend.probe.run.probe, []

    def counted(*arguments, **settings):  # type: ignore[no-untyped-def]
        asked.append(settings["mode"])
        return probe(*arguments, **settings | {"mode": "screen", "families": ("patch",)})

    monkeypatch.setattr(modelmend.probe.run, "probe", counted)
    told = io.StringIO()
    options = TrainOptions(small_zoo, small_zoo, tmp_path / "a", cache=tmp_path / "kept", budget=300, rounds=2)
    assert train_command(options, Console(file=told, width=120)) == 0
    assert asked == ["full", "screen"]

    recipe = json.loads((tmp_path / "a" / "policy.json").read_text())["recipe"]
    (row,) = recipe["models"]
    assert row["weights_hash"] == read_records(small_zoo)[0].weights_hash
    assert (recipe["rounds"], recipe["seed"], len(recipe["mean_reward_by_round"])) == (2, 0, 2)
    assert row["best"] >= max(row["rule"], row["before"], row["after"])
    shown = next(line for line in told.getvalue().splitlines() if line.startswith("│ one"))
    assert [cell.strip() for cell in shown.strip("│").split("│")] == [
        "one",
        *(f"{row[name]:.3f}" for name in ("rule", "before", "after", "best")),
    ]

    assert train_command(dataclasses.replace(options, out=tmp_path / "b"), Console(file=io.StringIO())) == 0
    assert asked == ["full", "screen"]
    first, second = (load_policy(tmp_path / name).state_dict() for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
