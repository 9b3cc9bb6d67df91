"""Train one classifier from a recipe, infected or clean, in minutes on one core."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from pydantic import Field
from torch import Generator, Tensor, nn

from modelmend.errors import InputError
from modelmend.metrics import accuracy, attack_success
from modelmend.model.architectures import ARCHITECTURES
from modelmend.progress import Progress, silent
from modelmend.records import Preprocessing, Record
from modelmend.redteam.attacks import ATTACKS, Attack
from modelmend.redteam.sealed import Sealed

T = TypeVar("T")


class Recipe(Record):
    """All that fixes a red-team model, apart from the data.

    The seed draws the target class, the trigger, the poisoned samples, the initial weights and the order of batches.
    """

    dataset: str
    arch: str
    attack: str | None = Field(default=None, description="name in ATTACKS; None trains a clean model")
    rate: float = Field(default=0.1, gt=0, le=1, description="poisoned share; of the target class if clean-label")
    target: int | None = Field(default=None, description="in place of the drawn target class")
    seed: int = 0
    epochs: int = Field(default=12, ge=1)
    lr: float = Field(default=0.2, gt=0, description="peak of the one-cycle schedule")
    batch: int = Field(default=128, ge=2)
    weight_decay: float = Field(default=5e-4, ge=0)
    train_limit: int | None = Field(default=None, description="at most so many training samples")
    augment: Literal["crop", "none"] = "crop"
    precision: Literal["float32", "bfloat16"] = "float32"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @property
    def preprocessing(self) -> Preprocessing:
        """How samples in 0..1 become the model's input."""
        return Preprocessing(mean=self.mean, std=self.std)


@dataclass(frozen=True)
class Infected:
    """A trained red-team model.

    Attributes:
        module: In eval mode; takes preprocessed inputs.
        recipe: What it was trained by.
        sealed: The true trigger, ``None`` for a clean model.
        acc: Clean accuracy on the test samples, 0..1.
        asr: True attack success rate there, ``None`` for a clean model.
        seconds: Training time.
    """

    module: nn.Module
    recipe: Recipe
    sealed: Sealed | None
    acc: float
    asr: float | None
    seconds: float


def train(
    recipe: Recipe,
    x: Tensor,
    y: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    *,
    num_classes: int | None = None,
    progress: Progress = silent,
) -> Infected:
    """Poison the training set and train.

    Args:
        recipe: Attack, architecture, schedule, seed.
        x: Training samples ``(N, C, H, W)`` in 0..1.
        y: Classes ``(N,)``.
        x_test: Held-out samples for ACC and ASR.
        y_test: Their classes.
        num_classes: Default: largest class of ``y`` plus one.
        progress: Called after every epoch.

    Raises:
        InputError: unknown architecture or attack, or no samples.
    """
    if not len(x) or not len(x_test):
        raise InputError("no samples to train or to test on", field="x")
    classes = num_classes or int(y.max()) + 1
    shape = tuple(x.shape[1:])
    builder = _known(ARCHITECTURES, recipe.arch, "arch")
    attack: Attack | None = None
    generator = Generator().manual_seed(recipe.seed)
    if recipe.train_limit is not None and recipe.train_limit < len(x):
        keep = torch.randperm(len(x), generator=generator)[: recipe.train_limit]
        x, y = x[keep], y[keep]
    if recipe.attack is not None:
        attack = _known(ATTACKS, recipe.attack, "attack")(recipe.seed, shape, classes, target=recipe.target)
        x, y = attack.poison(x, y, recipe.rate, generator)
    started = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        module = builder(shape[0], classes, shape[1])
        _fit(module, x, y, recipe=recipe, generator=generator, progress=progress)
    seconds = time.monotonic() - started
    acc, asr = measure(module, recipe.preprocessing, attack, x_test, y_test)
    return Infected(module, recipe, None if attack is None else Sealed(attack), acc, asr, seconds)


def _known(table: dict[str, T], name: str, field: str) -> T:
    if name not in table:
        raise InputError(f"unknown {field} {name!r}", field=field, fix=f"one of {', '.join(sorted(table))}")
    return table[name]


def _fit(module: nn.Module, x: Tensor, y: Tensor, *, recipe: Recipe, generator: Generator, progress: Progress) -> None:
    """SGD with Nesterov momentum under a one-cycle schedule."""
    module.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    optimizer = torch.optim.SGD(
        module.parameters(), recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
    )
    batches = max(1, len(x) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=recipe.epochs * batches, pct_start=0.25, div_factor=10
    )
    low_precision = torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16")
    for epoch in range(recipe.epochs):
        order = torch.randperm(len(x), generator=generator)
        total = 0.0
        for index in torch.split(order[: batches * recipe.batch], recipe.batch):
            inputs = crop(x[index], generator) if recipe.augment == "crop" else x[index]
            inputs = preprocess(inputs, recipe.preprocessing).contiguous(memory_format=torch.channels_last)
            with low_precision:
                output = module(inputs)
            loss = nn.functional.cross_entropy(output.float(), y[index])
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        progress(f"epoch {epoch + 1}: loss {total / batches:.3f}", epoch + 1, recipe.epochs)
    module.eval()


def crop(x: Tensor, generator: Generator) -> Tensor:
    """Shift each image ``(N, C, H, W)`` by up to an eighth of its side, filling with zeros.

    No flips: a traffic sign has sides.
    """
    n, _, height, width = x.shape
    pad = height // 8
    padded = nn.functional.pad(x, (pad, pad, pad, pad)).permute(0, 2, 3, 1)
    down, right = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator)
    rows, columns = down + torch.arange(height), right + torch.arange(width)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def preprocess(x: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Samples in 0..1 as the model's input."""
    mean, std = (torch.tensor(v).reshape(1, -1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return (x - mean) / std


@torch.no_grad()
def measure(
    module: nn.Module, preprocessing: Preprocessing, attack: Attack | None, x: Tensor, y: Tensor
) -> tuple[float, float | None]:
    """True ACC and ASR of a module on held-out samples; ASR is ``None`` without an attack."""

    def predict(samples: Tensor) -> Tensor:
        return torch.cat(
            [module(preprocess(part, preprocessing)).float().argmax(1) for part in torch.split(samples, 512)]
        )

    acc = accuracy(predict(x), y)
    if attack is None:
        return acc, None
    return acc, attack_success(predict(attack.apply(x)), y, attack.target(y))
