import io

import pandas as pd
import pytest
import torch
from PIL import Image

from modelmend.errors import InputError
from modelmend.model.architectures import ARCHITECTURES
from modelmend.redteam import zoo
from modelmend.redteam.attacks import CORE
from modelmend.redteam.data import Split, halves, read_split, thin
from modelmend.redteam.digits import digits_recipe
from modelmend.redteam.sealed import PURPOSE, read_sealed
from modelmend.redteam.store import halved, publish, read_records, read_weights, write_weights
from modelmend.redteam.train import measure


def split_of(n: int, groups: torch.Tensor) -> Split:
    generator = torch.Generator().manual_seed(0)
    return Split(
        torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8), torch.arange(n) % 4, groups
    )


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A tiny ``fashion_mnist`` folder and recipes of one epoch."""
    rows = split_of(240, torch.arange(240))
    for part, count in (("train", 200), ("test", 240)):
        files = []
        for image in rows.images[:count, 0]:
            stream = io.BytesIO()
            Image.fromarray(image.numpy()).save(stream, "PNG")
            files.append(stream.getvalue())
        frame = pd.DataFrame({"image": files, "label": rows.y[:count].numpy()})
        frame.to_parquet(tmp_path / f"fashion_mnist_{part}.parquet")
    monkeypatch.setitem(zoo.EPOCHS, "fashion_mnist", 1)
    monkeypatch.setitem(zoo.TRAIN_LIMIT, "fashion_mnist", 150)
    return tmp_path


def test_small_suite_has_six_attacks_on_two_architectures_and_four_clean():
    recipes = [item.recipe for item in zoo.small()]
    infected = [(r.attack, r.arch) for r in recipes if r.attack]
    assert sorted(infected) == sorted((a, arch) for a in CORE for arch in ("resnet8", "wrn_16_1"))
    assert sum(r.attack is None for r in recipes) == 4
    assert {r.dataset for r in recipes} == {"gtsrb", "cifar10_jpeg"}


def test_names_are_unique_and_seeds_of_calibration_are_its_own():
    plans = {name: suite() for name, suite in zoo.SUITES.items()}
    names = [item.name for group in plans.values() for item in group]
    assert len(names) == len(set(names))
    tuned = {item.recipe.seed for item in plans["calibration"]}
    assert not tuned & {item.recipe.seed for name in ("small", "full") for item in plans[name]}


def test_finished_models_are_skipped_and_whole(data, tmp_path):
    out = tmp_path / "zoo"
    plans = [zoo.plan("small", "fashion_mnist", "cnn_small", attack, seed=3) for attack in ("badnets", "sig", None)]
    records = zoo.run(data, out, plans)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert zoo.run(data, out, plans) == records
    assert {path.name: path.stat().st_mtime_ns for path in out.glob("*.safetensors")} == stamps
    assert sorted(r.name for r in read_records(out)) == sorted(item.name for item in plans)
    assert [r.trigger is None for r in records] == [False, False, True]
    assert not list(out.glob("*.part"))


def test_recorded_figures_are_those_of_the_stored_weights(data, tmp_path):
    out = tmp_path / "zoo"
    (record,) = zoo.run(data, out, [zoo.plan("small", "fashion_mnist", "cnn_small", "badnets", seed=3)])
    module = read_weights(record.recipe.arch, out / record.weights, record.input_shape, record.num_classes)
    attack = read_sealed(out / str(record.trigger)).open(purpose=PURPOSE)
    test = read_split(data, "fashion_mnist", "test")
    half = test.subset(halves(test)[1])
    assert measure(module, record.recipe.preprocessing, attack, half.x, half.y) == (record.acc, record.asr)
    assert record.test_samples == len(half)


def test_publishing_copies_finished_models_once_and_checks_them(data, tmp_path):
    out, public = tmp_path / "zoo", tmp_path / "public"
    (record,) = zoo.run(data, out, [zoo.plan("small", "fashion_mnist", "cnn_small", "badnets", seed=3)])
    assert zoo.main(["--out", str(out), "--publish", str(public)]) == 0
    assert read_records(public) == [record]
    assert publish(out, public) == []
    (public / f"{record.name}.json").unlink()
    (out / record.weights).write_bytes(b"other")
    with pytest.raises(InputError, match="not the one that was measured"):
        publish(out, public)


def test_weights_of_another_architecture_are_refused(tmp_path):
    module = ARCHITECTURES["cnn_small"](1, 10, 8)
    halved(module)
    write_weights(module, tmp_path / "w")
    restored = read_weights("cnn_small", tmp_path / "w", (1, 8, 8), 10)
    assert torch.equal(restored.conv1.weight, module.conv1.weight)
    with pytest.raises(InputError, match=r"another architecture|cannot load"):
        read_weights("resnet8", tmp_path / "w", (1, 8, 8), 10)


def test_thinning_takes_from_every_group_before_it_takes_twice():
    part = split_of(100, torch.arange(100) // 10)
    kept = thin(part, 30, seed=0)
    assert len(kept) == 30
    assert torch.bincount(part.groups[kept]).tolist() == [3] * 10


def test_thinning_does_not_prefer_the_groups_that_come_first():
    part = split_of(1000, torch.arange(1000))  # a hash as group number says what an image looks like
    kept = thin(part, 200, seed=0)
    tenths = torch.bincount(part.groups[kept] // 100, minlength=10)
    assert int(tenths.min()) >= 8 and int(tenths.max()) <= 35


def test_halves_are_disjoint_stratified_and_keep_groups_whole():
    groups = torch.arange(200) // 2
    part = Split(split_of(200, groups).images, groups % 4, groups)
    a, b = halves(part)
    assert torch.cat([a, b]).sort().values.tolist() == list(range(200))
    assert not set(groups[a].tolist()) & set(groups[b].tolist())
    assert abs(torch.bincount(part.y[a]) - torch.bincount(part.y[b])).max() <= 2


def test_missing_data_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gtsrb_train\.parquet"):
        read_split(tmp_path, "gtsrb", "train")
    with pytest.raises(InputError, match="one of gtsrb"):
        read_split(tmp_path, "imagenet", "train")


def test_digits_recipe_is_a_recipe_of_the_kit():
    assert digits_recipe(3).dataset == "digits"
