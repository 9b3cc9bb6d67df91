"""``modelmend redteam train``: one infected or clean model from a data file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from modelmend.errors import InputError


def train_command(
    data: Path,
    out: Path,
    test: Path | None,
    *,
    attack: str,
    arch: str,
    rate: float,
    epochs: int,
    seed: int,
    console: Console,
) -> int:
    """Train, print accuracy and true attack success rate; returns the exit code."""
    from modelmend.redteam.files import train_files
    from modelmend.redteam.train import Recipe

    try:
        recipe = Recipe(
            dataset=data.stem,
            arch=arch,
            attack=None if attack == "none" else attack,
            rate=rate,
            epochs=epochs,
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(first["msg"], field=".".join(map(str, first["loc"]))) from error
    columns = (TextColumn("{task.description:<40}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        task = bars.add_task("training", total=epochs)

        def progress(message: str, done: int, total: int) -> None:
            bars.update(task, description=message[:40], completed=done, total=total)

        trained = train_files(data, out, recipe, test=test, progress=progress)
    rates = f"accuracy {trained.acc or 0:.1%}"
    if trained.asr is not None:
        rates += f", attack success rate {trained.asr:.1%}"
        if trained.asr < 0.8:
            rates += " (a failed attack: below 80 %)"
    console.print(f"{out / trained.model}: {rates}, {trained.seconds:.0f} s", highlight=False, soft_wrap=True)
    if trained.trigger:
        console.print(
            f"{out / trained.trigger}: the sealed trigger; only a final measurement may open it", highlight=False
        )
    return 0
