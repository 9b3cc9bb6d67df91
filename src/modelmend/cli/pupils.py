"""Models of a zoo that a pruning policy learns on: which ones, and their searches, posed without their triggers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelmend.artifacts import sha256_file
from modelmend.errors import InputError
from modelmend.progress import Progress

if TYPE_CHECKING:
    from modelmend.pruning.environment import CutEnvironment
    from modelmend.redteam.store import ZooRecord
    from modelmend.samples.data import Samples

TRAIN_ZOO = "train one: python -m modelmend.redteam.zoo --data DIR --out DIR --suite calibration"


@dataclass(frozen=True)
class TrainOptions:
    """What to learn on, and how long.

    Attributes:
        zoo: Folder of ``modelmend.redteam.zoo``.
        data: Folder of the parquet files.
        out: Where the policy goes.
        cache: Where triggers are kept; ``None``: ``out/triggers``.
        group: Suite of the zoo whose models are learned on.
        leave_out: Attacks, architectures and data sets that are held out.
        budget: Clean samples a model, divided as a repair divides them.
        probe: ``full`` or ``screen``.
        rounds: Turns of every model.
        seed: Of every draw.
    """

    zoo: Path
    data: Path
    out: Path
    cache: Path | None = None
    group: str = "calibration"
    leave_out: tuple[str, ...] = ()
    budget: int = 500
    probe: str = "full"
    rounds: int = 40
    seed: int = 0


@dataclass
class Pupil:
    """One model to learn on; rewards are filled in on the way.

    Attributes:
        record: From the zoo.
        environment: Its search.
        pairs: Number of families and classes that the reward is made of.
        rule: Reward of the best rule.
        before: Mean reward of the untrained policy's searches.
        after: The same of the trained policy.
    """

    record: ZooRecord
    environment: CutEnvironment
    pairs: int
    rule: float
    before: float = 0.0
    after: float = 0.0

    @property
    def best(self) -> float:
        """Best reward seen."""
        return self.environment.archive.best()[0].reward

    def row(self) -> dict[str, Any]:
        """For the recipe."""
        r = self.record
        known: dict[str, Any] = {"name": r.name, "weights_hash": r.weights_hash}
        known |= {"attack": r.recipe.attack, "arch": r.recipe.arch, "dataset": r.recipe.dataset}
        sizes = {"groups": self.environment.groups, "pairs": self.pairs}
        return known | sizes | {"rule": self.rule, "before": self.before, "after": self.after, "best": self.best}


def choose_records(zoo: Path, group: str, leave_out: Sequence[str]) -> list[ZooRecord]:
    """Infected models of one suite of a zoo, without those that are held out.

    Raises:
        InputError: no zoo, no model of the suite, a name to leave out that no model has, or nothing left.
    """
    from modelmend.redteam.store import read_records

    records = read_records(zoo) if zoo.is_dir() else []
    if not records:
        raise InputError("no finished models here", where=zoo, field="zoo", fix=TRAIN_ZOO)
    mine = [record for record in records if record.group == group and record.infected]
    if not mine:
        there = ", ".join(sorted({record.group for record in records if record.infected})) or "none"
        raise InputError(
            f"no infected model of {group!r} here", where=zoo, field="group", fix=f"groups that have some: {there}"
        )
    known = {name for record in mine for name in _traits(record)}
    if unknown := [name for name in leave_out if name not in known]:
        raise InputError(
            f"no model has {', '.join(unknown)}", where=zoo, field="leave-out", fix=f"known: {', '.join(sorted(known))}"
        )
    kept = [record for record in mine if not _traits(record) & set(leave_out)]
    if not kept:
        raise InputError("every model is left out", where=zoo, field="leave-out", fix="leave out less")
    return kept


def _traits(record: ZooRecord) -> set[str]:
    return {str(record.recipe.attack), record.recipe.arch, record.recipe.dataset}


def open_pupil(options: TrainOptions, record: ZooRecord, memory: int, tell: Progress) -> Pupil | None:
    """Pose one model's search; ``None`` when the probe finds no trigger. The sealed trigger is not read.

    Raises:
        InputError: the weights are not those of the record, or the data set cannot be read.
        SamplesError: too few clean samples.
    """
    from modelmend.model.classifier import Classifier
    from modelmend.model.export import export_module
    from modelmend.pruning.lessons import lesson
    from modelmend.redteam.store import read_weights
    from modelmend.samples.split import draw_budget, split
    from modelmend.steps.triggers import probed

    weights = options.zoo / record.weights
    if not weights.is_file() or sha256_file(weights) != record.weights_hash:
        raise InputError(
            "the weights are not those of the record", where=weights, field="weights_hash", fix="train the model again"
        )
    module = read_weights(record.recipe.arch, weights, record.input_shape, record.num_classes)
    graph = export_module(module, record.input_shape)
    classifier = Classifier(graph, record.recipe.preprocessing, record.num_classes).frozen()
    clean = draw_budget(_pool(options.data, record.recipe.dataset), options.budget, options.seed)
    parts = split(clean, options.seed)
    fit, reward, more = ((clean.x[rows], clean.y[rows]) for rows in (parts.fit, parts.reward, parts.select))
    name, cache = f"{record.name}-{options.budget}-{options.seed}", options.cache or options.out / "triggers"
    settings: dict[str, Any] = {"mode": options.probe, "seed": options.seed, "progress": tell, "more": more}
    found = probed(cache, name, classifier, fit, reward, **settings)
    if not found.triggers:
        return None
    problem = lesson(classifier, fit, reward, found.triggers, seed=options.seed, again=found.again, memory=memory)
    environment, rules = problem.environment()
    return Pupil(record, environment, len(problem.judge.pairs), rules[0].reward)


@lru_cache(maxsize=3)
def _pool(data: Path, dataset: str) -> Samples:
    """The defender's half of a test file."""
    from modelmend.redteam.data import halves, read_split
    from modelmend.samples.data import make_samples

    test = read_split(data, dataset, "test")
    mine = test.subset(halves(test)[0])
    return make_samples(mine.x, mine.y, source=f"{dataset} test file, half A", groups=mine.groups)
