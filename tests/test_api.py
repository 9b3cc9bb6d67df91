"""The Python way in tells what it cannot work with as its own errors, before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import modelmend
from modelmend.errors import InputError

ARRAYS = (np.zeros((20, 1, 8, 8), np.float32), np.arange(20) % 4)


@pytest.mark.parametrize(
    ("model", "samples", "field"), [(42, ARRAYS, "model"), (torch.nn.Flatten(), ARRAYS[0], "samples")]
)
def test_what_is_no_model_or_no_samples_is_named(tmp_path: Path, model: Any, samples: Any, field: str) -> None:
    with pytest.raises(InputError) as error:
        modelmend.repair(model, samples, run_dir=tmp_path / "run")
    assert error.value.field == field


def test_a_run_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(InputError) as error:
        modelmend.repair(torch.nn.Flatten(), ARRAYS, run_dir=tmp_path / "file" / "run")
    assert error.value.field == "run_dir"
