"""Exports of the zoo, made once a session, and the clean archive that others are mutated from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.model.hostile import clean_pt2
from tests.model.zoo import ZOO

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, torch.export.ExportedProgram]]:
    """Name of a zoo member to (its ``.pt2`` as stock torch writes it, the exported program)."""
    folder = tmp_path_factory.mktemp("zoo")
    made: dict[str, tuple[Path, torch.export.ExportedProgram]] = {}

    def export(name: str) -> tuple[Path, torch.export.ExportedProgram]:
        if name not in made:
            specimen = ZOO[name]
            batch = torch.export.Dim("batch", min=1, max=1024)
            with torch.no_grad():
                program = torch.export.export(specimen.module(), (specimen.inputs(2),), dynamic_shapes=({0: batch},))
            path = folder / f"{name}.pt2"
            torch.export.save(program, path)
            made[name] = path, program
        return made[name]

    return export


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small proper ``.pt2``: one linear layer and batch arithmetic."""
    return clean_pt2(tmp_path_factory.mktemp("clean") / "clean.pt2")
