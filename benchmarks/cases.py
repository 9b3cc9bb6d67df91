"""What is measured on: models of known recipe, the defender's pool of clean samples, and the sealed rest."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from torch import Tensor, nn

from modelmend.errors import InputError
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.records import Preprocessing
from modelmend.redteam.data import DATASETS, Split, halves, read_split
from modelmend.redteam.digits import DigitsSplit, train_infected_digits
from modelmend.redteam.sealed import Sealed, read_sealed
from modelmend.redteam.store import INFECTED_ABOVE, ZooRecord, read_records, read_weights
from modelmend.redteam.train import Infected, Recipe
from modelmend.samples.data import Samples, make_samples
from modelmend.samples.split import draw_budget  # noqa: F401  (the benchmarks take it from here)

SUITES = ("smoke", "small", "full", "calibration")
"""Settings are chosen on ``calibration`` only."""


@dataclass(frozen=True, eq=False)
class Case:
    """One model to repair.

    Attributes:
        name: Unique.
        data: What tables call the data set.
        recipe: Of the model; no method sees it.
        infected: True ASR is at least 80 %.
        module: The model, eval mode.
        input_shape: ``(C, H, W)``.
        num_classes: Number of classes.
        pool: The clean samples that budgets are drawn from (half A of the test file).
        x_final: Samples of the final measurement (half B).
        y_final: Their classes.
        sealed: True trigger, opened by the final measurement only; ``None`` for a clean model.
    """

    name: str
    data: str
    recipe: Recipe
    infected: bool
    module: nn.Module
    input_shape: tuple[int, ...]
    num_classes: int
    pool: Samples
    x_final: Tensor
    y_final: Tensor
    sealed: Sealed | None

    def classifier(self) -> Classifier:
        """A fresh copy in the model form."""
        return self._exported.clone()

    @cached_property
    def _exported(self) -> Classifier:
        preprocessing: Preprocessing = self.recipe.preprocessing
        return Classifier(export_module(self.module, self.input_shape), preprocessing, self.num_classes)


def read_cases(suite: str, data: Path | None, zoo: Path) -> list[Case]:
    """Cases of a suite: ``smoke`` trains two digits models, the others come from the zoo.

    Raises:
        InputError: unknown suite, or no data folder or zoo where one is needed.
    """
    if suite == "smoke":
        return [_digits(attack) for attack in ("badnets", "blended")]
    if suite not in SUITES:
        raise InputError(f"unknown suite {suite!r}", field="suite", fix=f"one of {', '.join(SUITES)}")
    groups = {"small", "full"} if suite == "full" else {suite}
    records = [record for record in read_records(zoo) if record.group in groups] if zoo.is_dir() else []
    if not records:
        raise InputError("no finished models here", where=zoo, fix="train them: python -m modelmend.redteam.zoo")
    if data is None:
        raise InputError("this suite needs the data sets", field="--data", fix="give the folder of parquet files")
    return [_from_zoo(record, data, zoo) for record in sorted(records, key=lambda r: (r.recipe.dataset, r.name))]


def case_options(parser: ArgumentParser, *, suite: str, budget: int) -> None:
    """Add the options that say which models are measured, and with how many clean samples."""
    parser.add_argument("--data", type=Path, help="folder of <name>_{train,test}.parquet; not needed for smoke")
    parser.add_argument("--zoo", type=Path, default=Path(__file__).parent / "zoo", help="folder of trained models")
    parser.add_argument("--suite", choices=SUITES, default=suite)
    parser.add_argument("--only", default="", help="only models whose name holds one of these texts (comma)")
    parser.add_argument("--budget", type=int, default=budget, help="clean samples of the defender")


def wanted(case: Case, only: str) -> bool:
    """Whether ``--only`` asks for this model."""
    return any(text in case.name for text in only.split(","))


def clean_references(cases: Sequence[Case]) -> dict[tuple[str, str], Case]:
    """Clean models by (data set, architecture); of the digits one is trained."""
    found = {(c.recipe.dataset, c.recipe.arch): c for c in cases if c.recipe.attack is None}
    if any(c.recipe.dataset == "digits" for c in cases):
        found["digits", "cnn_small"] = _digits(None)
    return found


def _digits(attack: str | None) -> Case:
    infected, split = _digits_model(attack)
    return Case(
        name=f"digits-cnn_small-{attack or 'clean'}",
        data="digits 8x8",
        recipe=infected.recipe,
        infected=infected.asr is not None and infected.asr >= INFECTED_ABOVE,
        module=infected.module,
        input_shape=(1, 8, 8),
        num_classes=10,
        pool=make_samples(split.x_clean, split.y_clean, source="digits"),
        x_final=split.x_test,
        y_final=split.y_test,
        sealed=infected.sealed,
    )


@lru_cache
def _digits_model(attack: str | None) -> tuple[Infected, DigitsSplit]:
    return train_infected_digits(7, attack=attack)


@lru_cache(maxsize=4)
def _test_halves(data: Path, dataset: str) -> tuple[Samples, Split]:
    test = read_split(data, dataset, "test")
    a, b = (test.subset(index) for index in halves(test))
    return make_samples(a.x, a.y, source=f"{dataset} test file, half A", groups=a.groups), b


def _from_zoo(record: ZooRecord, data: Path, zoo: Path) -> Case:
    pool, final = _test_halves(data, record.recipe.dataset)
    return Case(
        name=record.name,
        data=DATASETS[record.recipe.dataset].label,
        recipe=record.recipe,
        infected=record.infected,
        module=read_weights(record.recipe.arch, zoo / record.weights, record.input_shape, record.num_classes),
        input_shape=record.input_shape,
        num_classes=record.num_classes,
        pool=pool,
        x_final=final.x,
        y_final=final.y,
        sealed=None if record.trigger is None else read_sealed(zoo / record.trigger),
    )
