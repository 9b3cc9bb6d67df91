"""A trigger from the user's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from modelmend.errors import InputError
from modelmend.model.classifier import Classifier
from modelmend.probe.known import MAX_BYTES, read_known_trigger
from modelmend.steps.measuring import digest, success

SHAPE = (3, 4, 4)
X = torch.full((2, *SHAPE), 0.4)


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "trigger.npz"
    np.savez(path, **{"target": np.int64(2), **arrays})
    return path


def read(path: Path, **options: Any) -> Any:
    return read_known_trigger(path, input_shape=SHAPE, num_classes=5, **options)


def test_a_patch_of_bytes(tmp_path: Path) -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[2:, 2:] = 255
    trigger = read(npz(tmp_path, mask=mask, pattern=np.full(SHAPE, 255, np.uint8)))
    assert (trigger.family, trigger.target) == ("known", 2)
    hit = trigger(X)
    assert torch.equal(hit[:, :, 2:, 2:], torch.ones(2, 3, 2, 2))
    assert torch.equal(hit[:, :, :2], X[:, :, :2])


def test_an_addition_from_safetensors_is_clamped(tmp_path: Path) -> None:
    path = tmp_path / "trigger.safetensors"
    save_file({"target": np.array([0]), "delta": np.full(SHAPE, 0.8, np.float32)}, path)
    assert torch.equal(read(path)(X), torch.ones_like(X))


def test_a_warp_moves_pixels(tmp_path: Path) -> None:
    flow = np.zeros((2, 4, 4), np.float32)
    flow[0] = 1.0
    x = torch.arange(4.0).expand(1, *SHAPE) / 10
    moved = read(npz(tmp_path, flow=flow))(x)
    assert torch.allclose(moved[0, 0, 0], torch.tensor([0.1, 0.2, 0.3, 0.3]), atol=1e-6)


def test_raw_samples_are_not_clamped(tmp_path: Path) -> None:
    path = npz(tmp_path, delta=np.array([5.0, -5.0], np.float32))
    trigger = read_known_trigger(path, input_shape=(2,), num_classes=3, image=False)
    assert torch.equal(trigger(torch.zeros(1, 2)), torch.tensor([[5.0, -5.0]]))
    assert len(digest(trigger)) > 20
    bytes_ = npz(tmp_path, delta=np.array([5, 6], np.uint8))
    with pytest.raises(InputError, match="uint8"):
        read_known_trigger(bytes_, input_shape=(2,), num_classes=3, image=False)


@pytest.mark.parametrize(
    ("arrays", "field"),
    [
        ({"mask": np.zeros((4, 4))}, "tensors"),
        ({"delta": np.zeros(SHAPE), "secret": np.zeros(1)}, "tensors"),
        ({"delta": np.zeros((3, 4, 5))}, "delta"),
        ({"delta": np.full(SHAPE, np.nan)}, "delta"),
        ({"delta": np.full(SHAPE, -20, np.int16)}, "delta"),
        ({"delta": np.full(SHAPE, 20.0)}, "delta"),
        ({"mask": np.zeros((4, 4)), "pattern": np.ones(SHAPE)}, "tensors"),
        ({"mask": np.full((4, 4), 2.0), "pattern": np.zeros(SHAPE)}, "mask"),
        ({"mask": np.ones((4, 4), np.uint8), "pattern": np.zeros(SHAPE)}, "mask"),
        ({"mask": np.ones((4, 4)), "pattern": np.full(SHAPE, -0.1)}, "pattern"),
        ({"delta": np.ones(SHAPE), "target": np.int64(5)}, "target"),
        ({"delta": np.ones(SHAPE), "target": np.float32(1.5)}, "target"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, arrays: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        read(npz(tmp_path, **arrays))
    assert caught.value.field == field
    assert caught.value.fix


def test_files_that_are_none(tmp_path: Path) -> None:
    text = tmp_path / "trigger.npz"
    with pytest.raises(InputError, match="cannot read"):
        read(text)
    text.write_text("no archive")
    with pytest.raises(InputError, match="npz archive"):
        read(text)
    np.savez(tmp_path / "aimless.npz", delta=np.ones(SHAPE))
    with pytest.raises(InputError, match="missing") as caught:
        read(tmp_path / "aimless.npz")
    assert caught.value.field == "target"
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="npz archive"):
        read(tmp_path / "one.npy")
    np.savez(tmp_path / "code.npz", target=np.int64(1), delta=np.array([print], dtype=object))
    with pytest.raises(InputError):
        read(tmp_path / "code.npz")
    np.savez_compressed(tmp_path / "bomb.npz", target=np.int64(1), delta=np.zeros(MAX_BYTES // 8 + 1))
    with pytest.raises(InputError, match="at most"):
        read(tmp_path / "bomb.npz")
    whole = npz(tmp_path, delta=np.ones(SHAPE)).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:60] + b"\xff" * 40 + whole[100:])
    with pytest.raises(InputError):
        read(tmp_path / "cut.npz")
    damaged = tmp_path / "trigger.safetensors"
    damaged.write_bytes(b"\x08")
    with pytest.raises(InputError, match="damaged"):
        read(damaged)


class Bright(Classifier):
    """Says 1 where the mean is over one half."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def predict(self, x: torch.Tensor, batch_size: int = 256) -> torch.Tensor:
        return (x.flatten(1).mean(1) > 0.5).long()


def test_success_counts_samples_of_other_classes_only(tmp_path: Path) -> None:
    x = torch.stack([torch.full(SHAPE, v) for v in (0.1, 0.3, 0.4, 0.9)])
    y = torch.tensor([0, 0, 0, 1])
    trigger = read(npz(tmp_path, delta=np.full(SHAPE, 0.25, np.float32), target=np.int64(1)))
    found = success(Bright(), trigger, x, y)
    assert (found.value, found.n, found.counts) == (2 / 3, 3, (2,))
    assert success(Bright(), trigger, x[3:], y[3:]).value is None
    other = read(npz(tmp_path, delta=np.full(SHAPE, 0.25, np.float32), target=np.int64(0)))
    assert digest(trigger) != digest(other)
