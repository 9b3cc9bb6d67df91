"""``modelmend policy train``: a pruning policy learned on a zoo of infected models."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from modelmend import __version__
from modelmend.cli.pupils import Pupil, TrainOptions, choose_records, open_pupil
from modelmend.errors import InputError
from modelmend.rundir import make_folder

if TYPE_CHECKING:
    from modelmend.pruning.policy import NeuronPolicy
    from modelmend.redteam.store import ZooRecord

MEMORY = 4 << 30
"""Bytes that the half-computed masks of all models together may take; what they need whole comes on top."""


def train_command(options: TrainOptions, console: Console) -> int:
    """Probe, learn, write ``policy.safetensors`` and ``policy.json``, print the table; returns the exit code."""
    if options.probe not in ("full", "screen"):
        raise InputError(f"unknown probe mode {options.probe!r}", field="probe", fix="use full or screen")
    records = choose_records(options.zoo, options.group, options.leave_out)
    make_folder(options.out, "out")
    began = time.monotonic(), time.process_time()
    columns = (TextColumn("{task.description:<58}"), BarColumn(bar_width=24), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        pupils = _read(options, records, console, bars)
        if not pupils:
            raise InputError(
                "the probe found no trigger on any model", where=options.zoo, field="probe", fix="use --probe full"
            )
        policy, about = _learn(options, pupils, console, bars)
    named = {pupil.record.name for pupil in pupils}
    silent = [record.name for record in records if record.name not in named]
    _save(options, policy, pupils, {"no_trigger_found": silent, **about}, began)
    console.print(_table(pupils))
    for name in silent:
        console.print(f"{name}: not learned on, the probe found no trigger", highlight=False, soft_wrap=True)
    seconds = time.monotonic() - began[0]
    console.print(f"policy: {options.out}, {seconds:.0f} s", highlight=False, soft_wrap=True)
    return 0


def _read(options: TrainOptions, records: Sequence[ZooRecord], console: Console, bars: Progress) -> list[Pupil]:
    """Pose the search of every model on which the probe finds a trigger."""
    pupils = []
    task = bars.add_task("reading the zoo", total=len(records))
    for number, record in enumerate(records):
        started = time.monotonic()

        def tell(message: str, done: int, total: int, name: str = record.name, number: int = number) -> None:
            bars.update(task, description=f"{name}: {message}"[:58], completed=number + done / max(total, 1))

        tell("reading", 0, 1)
        pupil = open_pupil(options, record, MEMORY // len(records), tell)
        if pupil is not None:
            pupils.append(pupil)
        told = "no trigger found" if pupil is None else f"best rule {pupil.rule:.3f}"
        if not console.is_terminal:
            console.print(f"{record.name}: {told}, {time.monotonic() - started:.0f} s", highlight=False, soft_wrap=True)
    bars.update(task, description="reading the zoo", completed=len(records))
    return pupils


def _learn(
    options: TrainOptions, pupils: Sequence[Pupil], console: Console, bars: Progress
) -> tuple[NeuronPolicy, dict[str, Any]]:
    """Train one policy on all pupils; fills in what it reaches before and after. Returns it, and how it learned."""
    from modelmend.pruning.onp import new_policy
    from modelmend.pruning.policy import PolicyConfig
    from modelmend.pruning.pretrain import LEARNER, pretrain, rehearse

    policy = new_policy(PolicyConfig(), options.seed)
    task = bars.add_task("learning", total=options.rounds * len(pupils))

    def tell(message: str, done: int, total: int) -> None:
        bars.update(task, description=f"{message}: round {(done - 1) // len(pupils) + 1}", completed=done)
        if not console.is_terminal and done % (10 * len(pupils)) == 0:
            console.print(f"{message}: {done} of {total} turns", highlight=False)

    for pupil in pupils:
        pupil.before = rehearse(pupil.environment, policy, LEARNER, seed=options.seed)
    environments = [pupil.environment for pupil in pupils]
    rows = pretrain(environments, policy, LEARNER, rounds=options.rounds, seed=options.seed, progress=tell)
    for pupil in pupils:
        pupil.after = rehearse(pupil.environment, policy, LEARNER, seed=options.seed)
    means = [round(sum(row["mean"]) / len(pupils), 4) for row in rows]
    return policy, {"learner": LEARNER.model_dump(mode="json"), "mean_reward_by_round": means}


def _save(
    options: TrainOptions,
    policy: NeuronPolicy,
    pupils: Sequence[Pupil],
    about: dict[str, Any],
    began: tuple[float, float],
) -> None:
    """Write the policy with its recipe; no path of this machine is in it."""
    import torch

    from modelmend.pruning.pretrain import save_policy

    chosen = {"group": options.group, "left_out": list(options.leave_out), "budget": options.budget}
    chosen |= {"probe": options.probe, "rounds": options.rounds, "seed": options.seed}
    cost = {"seconds": round(time.monotonic() - began[0]), "cpu_seconds": round(time.process_time() - began[1])}
    code = {"modelmend": __version__, "torch": torch.__version__}
    recipe = {"models": [pupil.row() for pupil in pupils], "code": code, **chosen, **cost, **about}
    try:
        save_policy(options.out, policy, recipe)
    except OSError as error:
        raise InputError(
            f"cannot write here: {error.strerror}", where=options.out, field="out", fix="choose another --out"
        ) from error


def _table(pupils: Sequence[Pupil]) -> Table:
    table = Table(
        title="reward of the best rule, of the untrained and the trained policy (mean of their searches), best seen",
        title_justify="left",
    )
    table.add_column("model", overflow="fold")
    for column in ("rule", "untrained", "trained", "best"):
        table.add_column(column, justify="right")
    rows = [(pupil.rule, pupil.before, pupil.after, pupil.best) for pupil in pupils]
    for pupil, figures in zip(pupils, rows, strict=True):
        table.add_row(pupil.record.name, *(f"{figure:.3f}" for figure in figures))
    if len(rows) > 1:
        table.add_section()
        table.add_row("mean", *(f"{sum(column) / len(rows):.3f}" for column in zip(*rows, strict=True)))
    return table
