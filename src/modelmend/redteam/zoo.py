"""Train the zoo of infected and clean models: ``python -m modelmend.redteam.zoo --data DIR --out DIR --suite small``.

One model at a time, finished ones are skipped, so the command can be stopped and started again.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from modelmend.progress import Progress, silent
from modelmend.redteam.attacks import ATTACKS, CORE, HARD
from modelmend.redteam.data import DATASETS, Split, halves, read_split, thin
from modelmend.redteam.sealed import PURPOSE
from modelmend.redteam.store import ZooRecord, halved, publish, read_records, write_model
from modelmend.redteam.train import Recipe, measure, train

_LOG = logging.getLogger("modelmend.redteam.zoo")

TRAIN_LIMIT = {"gtsrb": 16_000, "cifar10_jpeg": 20_000, "fashion_mnist": 12_000}
"""Training samples of each data set: a subset, spread over near-duplicate groups, for minutes on one core."""
EPOCHS = {"gtsrb": 12, "cifar10_jpeg": 14, "fashion_mnist": 6}
FREQUENT = 8
"""A clean-label attacker chooses one of so many most frequent classes."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """One model to train: its name, the suite it belongs to, its recipe."""

    name: str
    group: str
    recipe: Recipe


def plan(group: str, dataset: str, arch: str, attack: str | None, *, rate: float = 0.1, seed: int = 0) -> Plan:
    """The recipe of one model; a clean-label attack poisons 80 % of its target class at rate 0.1, 40 % at 0.01."""
    d = DATASETS[dataset]
    if attack is not None and ATTACKS[attack].clean_label:
        rate = {0.1: 0.8, 0.01: 0.4, 0.005: 0.2}[rate]
    recipe = Recipe(
        dataset=dataset,
        arch=arch,
        attack=attack,
        rate=rate,
        seed=seed,
        epochs=EPOCHS[dataset],
        lr=0.1 if arch in {"vgg_small", "vit_tiny"} else 0.3,
        train_limit=TRAIN_LIMIT[dataset],
        precision="bfloat16",
        mean=d.mean,
        std=d.std,
    )
    kind = "clean" if attack is None else f"{attack}-{rate * 100:g}pc"
    return Plan(f"{dataset}-{arch}-{kind}-s{seed}", group, recipe)


def small() -> list[Plan]:
    """12 infected models (six attacks, two architectures; the data set alternates) and 4 clean, most useful first."""
    plans = []
    for index, attack in enumerate(CORE):
        pair = ("gtsrb", "cifar10_jpeg") if index % 2 == 0 else ("cifar10_jpeg", "gtsrb")
        for arch, dataset in zip(("resnet8", "wrn_16_1"), pair, strict=True):
            plans.append(plan("small", dataset, arch, attack, seed=10 + index))
        if index == 1:
            plans += [plan("small", dataset, "resnet8", None, seed=1) for dataset in ("gtsrb", "cifar10_jpeg")]
    return plans + [plan("small", dataset, "wrn_16_1", None, seed=2) for dataset in ("gtsrb", "cifar10_jpeg")]


def calibration() -> list[Plan]:
    """Models to tune and pre-train on: other seeds, 1 % poison, Fashion-MNIST. Nobody measures on them."""
    plans = []
    for index, attack in enumerate((*CORE, *[None] * 6)):
        plans.append(
            plan("calibration", "fashion_mnist", ("cnn_small", "resnet8")[index % 2], attack, seed=100 + index)
        )
    for index, attack in enumerate(("badnets", "blended", "lf", "wanet")):
        plans.append(plan("calibration", "fashion_mnist", "resnet8", attack, rate=0.01, seed=120 + index))
    for index, attack in enumerate(CORE):
        if index % 2 == 0:
            plans += [plan("calibration", d, "resnet8", None, seed=160 + index) for d in ("gtsrb", "cifar10_jpeg")]
        rare = 0.01 if attack in {"badnets", "blended", "lf"} else 0.1
        plans.append(plan("calibration", "gtsrb", "resnet8", attack, seed=140 + index))
        plans.append(plan("calibration", "cifar10_jpeg", "resnet8", attack, rate=rare, seed=150 + index))
    return plans


def full() -> list[Plan]:
    """The other half of the small suite's pairs, 1 % and 0.5 % poison, the hard attacks, two more architectures."""
    plans = []
    for index, attack in enumerate(HARD):
        for dataset in ("gtsrb", "cifar10_jpeg"):
            plans.append(plan("full", dataset, "resnet8", attack, seed=30 + index))
    for index, attack in enumerate(CORE):
        pair = ("gtsrb", "cifar10_jpeg") if index % 2 == 1 else ("cifar10_jpeg", "gtsrb")
        plans += [
            plan("full", d, a, attack, seed=20 + index) for a, d in zip(("resnet8", "wrn_16_1"), pair, strict=True)
        ]
    for index, attack in enumerate(CORE):
        plans.append(plan("full", "gtsrb", "resnet8", attack, rate=0.01, seed=40 + index))
        plans.append(plan("full", "fashion_mnist", "resnet8", attack, rate=0.01, seed=240 + index))
    for number, arch in enumerate(("resnet8", "vgg_small", "mobilenet_small")):
        plans += [plan("full", "fashion_mnist", arch, a, seed=200 + 10 * number + i) for i, a in enumerate(CORE)]
        plans.append(plan("full", "fashion_mnist", arch, None, seed=209 + 10 * number))
    for index, attack in enumerate(("badnets", "blended")):
        plans.append(plan("full", "gtsrb", "resnet8", attack, rate=0.005, seed=50 + index))
        for arch in ("vgg_small", "mobilenet_small"):
            plans.append(plan("full", "gtsrb", arch, attack, seed=60 + index))
    return plans


SUITES = {"small": small, "calibration": calibration, "full": full}


def run(data: Path, out: Path, plans: Sequence[Plan], *, progress: Progress = silent) -> list[ZooRecord]:
    """Train what is not finished yet.

    Models train on the train file; ACC and ASR are measured on half B of the test file with the stored weights.

    Args:
        data: Folder of the parquet files.
        out: The zoo; one model after the other appears in it, each whole.
        plans: What to train, in this order.
        progress: Called after every epoch and model.
    """
    done = {record.name: record for record in read_records(out)} if out.is_dir() else {}
    cache: dict[str, tuple[Split, Split]] = {}
    for index, item in enumerate(plans):
        if item.name in done:
            continue
        dataset = item.recipe.dataset
        if dataset not in cache:
            cache.clear()
            train_part, test_part = read_split(data, dataset, "train"), read_split(data, dataset, "test")
            cache[dataset] = (train_part, test_part.subset(halves(test_part)[1]))
        done[item.name] = _one(item, *cache[dataset], out, progress)
        progress(f"{item.name}: ACC {done[item.name].acc}, ASR {done[item.name].asr}", index + 1, len(plans))
    return [done[item.name] for item in plans]


def _one(item: Plan, train_part: Split, test_part: Split, out: Path, progress: Progress) -> ZooRecord:
    recipe, classes = item.recipe, DATASETS[item.recipe.dataset].num_classes
    part = train_part.subset(thin(train_part, recipe.train_limit or len(train_part), recipe.seed))
    if recipe.attack is not None and ATTACKS[recipe.attack].clean_label and recipe.target is None:
        frequent = torch.bincount(part.y, minlength=classes).argsort(descending=True)[:FREQUENT]
        recipe = recipe.model_copy(update={"target": int(frequent[recipe.seed % FREQUENT])})
    x_test = test_part.x
    infected = train(recipe, part.x, part.y, x_test, test_part.y, num_classes=classes, progress=progress)
    halved(infected.module)
    attack = None if infected.sealed is None else infected.sealed.open(purpose=PURPOSE)
    acc, asr = measure(infected.module, recipe.preprocessing, attack, x_test, test_part.y)
    infected = dataclasses.replace(infected, acc=acc, asr=asr)
    shape = (int(x_test.shape[1]), int(x_test.shape[2]), int(x_test.shape[3]))
    return write_model(
        out, infected, name=item.name, group=item.group, sizes=(len(part), len(test_part)), shape=shape, classes=classes
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line of the zoo."""
    parser = argparse.ArgumentParser(prog="python -m modelmend.redteam.zoo", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of <name>_{train,test}.parquet")
    parser.add_argument("--out", type=Path, required=True, help="the zoo's folder; finished models are skipped")
    parser.add_argument("--suite", action="append", choices=sorted(SUITES), help="may be given several times")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="only models whose name holds this text")
    parser.add_argument("--publish", type=Path, help="train nothing; copy finished models from --out to this folder")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("modelmend.redteam.sealed").setLevel(logging.WARNING)
    if options.publish:
        for record in publish(options.out, options.publish):
            _LOG.info("copied %s: ACC %s, ASR %s", record.name, record.acc, record.asr)
        return 0
    if options.data is None:
        parser.error("--data is needed to train")
    torch.set_num_threads(options.threads)
    plans = [item for suite in options.suite or ["small"] for item in SUITES[suite]() if options.only in item.name]
    run(options.data, options.out, plans, progress=lambda m, done, total: _LOG.info("%s (%d/%d)", m, done, total))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
