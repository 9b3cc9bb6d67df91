import numpy as np
import pytest
import torch

from modelmend.errors import InputError
from modelmend.model.pt2 import read_pt2
from modelmend.redteam.digits import digits_recipe, digits_split
from modelmend.redteam.files import Trained, hold_out, train_files
from modelmend.redteam.sealed import PURPOSE, open_sealed
from modelmend.samples.data import make_samples


@pytest.fixture
def digits(tmp_path):
    split = digits_split(0)
    np.savez(tmp_path / "train.npz", x=split.x_train.numpy(), y=split.y_train.numpy())
    np.savez(tmp_path / "test.npz", x=split.x_test.numpy(), y=split.y_test.numpy())
    return tmp_path


def test_folder_holds_model_sealed_trigger_and_recipe(digits):
    out = digits / "infected"
    recipe = digits_recipe(0)
    trained = train_files(digits / "train.npz", out, recipe, test=digits / "test.npz")
    assert trained == Trained.read(out / "recipe.json")
    assert sorted(path.name for path in out.iterdir()) == ["model.pt2", "recipe.json", "trigger.safetensors"]
    split, graph = digits_split(0), read_pt2(out / "model.pt2")
    attack = open_sealed(out / "trigger.safetensors", purpose=PURPOSE)
    away = split.y_test != attack.target_class
    with torch.no_grad():
        hits = graph(attack.apply(split.x_test[away])).argmax(1) == attack.target_class
        right = graph(split.x_test).argmax(1) == split.y_test
    assert float(hits.float().mean()) == pytest.approx(trained.asr)
    assert float(right.float().mean()) == pytest.approx(trained.acc)
    assert trained.recipe.target is None


def test_clean_model_has_no_trigger_file(digits):
    recipe = digits_recipe(0, attack=None).model_copy(update={"epochs": 1})
    trained = train_files(digits / "train.npz", digits / "clean", recipe)
    assert trained.asr is None and trained.trigger is None
    assert not (digits / "clean" / "trigger.safetensors").exists()
    assert (trained.train_samples, trained.test_samples) == (810, 90)


def test_a_folder_with_a_model_is_not_overwritten(digits):
    (digits / "taken").mkdir()
    (digits / "taken" / "model.pt2").write_bytes(b"mine")
    with pytest.raises(InputError, match="already"):
        train_files(digits / "train.npz", digits / "taken", digits_recipe(0))
    assert (digits / "taken" / "model.pt2").read_bytes() == b"mine"


def test_held_out_tenth_keeps_groups_whole():
    groups = torch.arange(200) // 4
    samples = make_samples(torch.rand(200, 1, 8, 8), groups % 3, source="here", groups=groups)
    kept, aside = hold_out(samples, 0)
    assert len(aside) == 20 and len(kept) == 180
    assert not set(kept.groups.tolist()) & set(aside.groups.tolist())


def test_one_group_cannot_be_split():
    samples = make_samples(
        torch.rand(5, 1, 8, 8), torch.arange(5), source="here", groups=torch.zeros(5, dtype=torch.long)
    )
    with pytest.raises(InputError, match="hold any out"):
        hold_out(samples, 0)
