import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import modelmend
from modelmend.errors import InputError
from modelmend.redteam.attacks import ATTACKS
from modelmend.redteam.sealed import PURPOSE, Sealed, open_sealed, read_sealed


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_file_gives_back_the_same_attack(name, tmp_path):
    attack = ATTACKS[name](4, (3, 16, 16), 7)
    Sealed(attack).write(tmp_path / "t")
    opened = open_sealed(tmp_path / "t", purpose=PURPOSE)
    x = torch.rand(3, 3, 16, 16)
    assert torch.equal(opened.apply(x), attack.apply(x))
    assert (opened.target_class, opened.num_classes) == (attack.target_class, 7)


@pytest.mark.parametrize("purpose", ["", "tuning", "final", "FINAL-MEASUREMENT"])
def test_nothing_but_the_final_measurement_opens_it(purpose, tmp_path):
    sealed = Sealed(ATTACKS["badnets"](0, (1, 8, 8), 10))
    sealed.write(tmp_path / "t")
    for attempt in (
        lambda: sealed.open(purpose=purpose),
        lambda: open_sealed(tmp_path / "t", purpose=purpose),
        lambda: read_sealed(tmp_path / "t").open(purpose=purpose),
    ):
        with pytest.raises(InputError, match="does not open"):
            attempt()


def test_purpose_has_no_default(tmp_path):
    with pytest.raises(TypeError):
        open_sealed(tmp_path / "t")


def test_opening_is_logged(caplog):
    with caplog.at_level(logging.INFO, "modelmend.redteam.sealed"):
        Sealed(ATTACKS["badnets"](0, (1, 8, 8), 10), "here").open(purpose=PURPOSE)
    assert "here opened for final-measurement" in caplog.text


def test_no_product_room_reads_sealed_triggers():
    package = Path(modelmend.__file__).parent
    readers = {path.relative_to(package).parts[0] for path in package.rglob("*.py") if "sealed" in path.read_text()}
    assert readers <= {"redteam", "cli"}
    judged = (p for room in ("steps", "probe", "pruning", "editing", "gate") for p in (package / room).rglob("*.py"))
    assert not [path for path in judged if "modelmend.redteam" in path.read_text()]


def test_closed_form_shows_neither_target_nor_pattern():
    sealed = Sealed(ATTACKS["badnets"](0, (1, 8, 8), 10), "here")
    assert repr(sealed) == "Sealed(here)"
    assert not [name for name in vars(sealed) if name in {"attack", "target", "tensors"}]


def test_other_files_are_refused_with_their_name(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    (tmp_path / "text").write_text("no")
    for name in ("weights.safetensors", "text", "missing"):
        with pytest.raises(InputError, match=name):
            read_sealed(tmp_path / name)
