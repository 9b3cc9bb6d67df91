"""From a data file to a folder with an infected model: what ``modelmend redteam train`` does."""

from __future__ import annotations

from pathlib import Path

import torch

from modelmend.artifacts import sha256_file
from modelmend.errors import InputError
from modelmend.model.export import export_module
from modelmend.model.pt2 import write_pt2
from modelmend.progress import Progress, silent
from modelmend.records import Figure, Record
from modelmend.redteam.train import Infected, Recipe, train
from modelmend.samples.data import Samples
from modelmend.samples.read import read_samples

MODEL, TRIGGER, RECIPE = "model.pt2", "trigger.safetensors", "recipe.json"
HELD_OUT = 0.1


class Trained(Record):
    """``recipe.json``: how the model was made and what it does; the trigger itself is in the sealed file only."""

    recipe: Recipe
    input_shape: tuple[int, int, int]
    num_classes: int
    train_samples: int
    test_samples: int
    acc: Figure
    asr: Figure = None
    model: str = MODEL
    model_hash: str
    trigger: str | None = None
    trigger_hash: str | None = None
    seconds: float


def train_files(
    data: str | Path, out: Path, recipe: Recipe, *, test: str | Path | None = None, progress: Progress = silent
) -> Trained:
    """Train one model and write ``model.pt2``, the sealed ``trigger.safetensors`` and ``recipe.json``.

    Args:
        data: Training images, anything that ``read_samples`` takes.
        out: New or empty folder.
        recipe: Attack, architecture, schedule, seed.
        test: Held-out images for ACC and ASR; without it a tenth of ``data`` is held out, groups kept whole.
        progress: Called after every epoch.

    Raises:
        InputError: the folder already holds a model, or the images fit no attack.
        SamplesError: unreadable data.
    """
    if any((out / name).exists() for name in (MODEL, TRIGGER, RECIPE)):
        raise InputError("there is a model here already", where=out, field="--out", fix="choose a new folder")
    samples = read_samples(data)
    if samples.x.dim() != 4 or samples.x.shape[2] != samples.x.shape[3] or samples.x.shape[2] < 8:
        raise InputError(
            f"images of shape {tuple(samples.x.shape[1:])}; square ones of 8 pixels or more are needed", where=data
        )
    shape = (int(samples.x.shape[1]), int(samples.x.shape[2]), int(samples.x.shape[3]))
    if test is None:
        samples, held = hold_out(samples, recipe.seed)
    else:
        held = read_samples(test, input_shape=shape)
    classes = int(max(samples.y.max(), held.y.max())) + 1
    infected = train(recipe, samples.x, samples.y, held.x, held.y, num_classes=classes, progress=progress)
    return _write(infected, out, shape, classes, (len(samples), len(held)))


def hold_out(samples: Samples, seed: int) -> tuple[Samples, Samples]:
    """Put a tenth aside, groups whole. Raises ``InputError`` when there are fewer than two groups."""
    groups = torch.unique(samples.groups)
    order = groups[torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed))]
    aside = torch.isin(samples.groups, order[: max(1, round(HELD_OUT * len(order)))])
    if bool(aside.all()):
        raise InputError("too few samples to hold any out", where=samples.source, fix="give --test")
    return samples.subset(torch.nonzero(~aside).flatten()), samples.subset(torch.nonzero(aside).flatten())


def _write(infected: Infected, out: Path, shape: tuple[int, int, int], classes: int, sizes: tuple[int, int]) -> Trained:
    out.mkdir(parents=True, exist_ok=True)
    write_pt2(export_module(infected.module, shape), out / MODEL, shape)
    if infected.sealed is not None:
        infected.sealed.write(out / TRIGGER)
    trained = Trained(
        recipe=infected.recipe,
        input_shape=shape,
        num_classes=classes,
        train_samples=sizes[0],
        test_samples=sizes[1],
        acc=infected.acc,
        asr=infected.asr,
        model_hash=sha256_file(out / MODEL),
        trigger=None if infected.sealed is None else TRIGGER,
        trigger_hash=None if infected.sealed is None else sha256_file(out / TRIGGER),
        seconds=round(infected.seconds, 1),
    )
    trained.write(out / RECIPE)
    return trained
