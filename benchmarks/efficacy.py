"""Do repairs work: ``python -m benchmarks.efficacy --data DIR --suite small --methods modelmend,ft-sam``.

Every (model, method, seed) is one file in the output folder, so a run can be stopped and started again.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

import benchmarks.baselines
import benchmarks.methods
import modelmend.editing
import modelmend.probe
import modelmend.pruning
import modelmend.steps.mending
from benchmarks.cases import Case, case_options, clean_references, draw_budget, read_cases, wanted
from benchmarks.measure import Figures, final_measurement
from benchmarks.methods import Method, Triggers, methods
from benchmarks.parts import NotApplicableError, divide
from benchmarks.reactivation import woken
from benchmarks.table import markdown, summary
from modelmend import __version__
from modelmend.artifacts import sha256_code, write_json
from modelmend.errors import ModelmendError
from modelmend.metrics import der, relative_der, sample_passes
from modelmend.model.cost import count
from modelmend.progress import Progress

EFFORT = {"smoke": 0.25, "small": 0.25, "full": 1.0}
"""Share of the baselines' published step counts, by suite; every table states it."""


def run_cell(
    case: Case,
    method: Method,
    triggers: Triggers,
    seed: int,
    progress: Progress,
    *,
    reference: Case | None = None,
) -> dict[str, Any]:
    """Repair one model by one method; nothing true about the trigger is known until the repair is finished.

    Args:
        case: The model.
        method: The repair.
        triggers: The probe that methods may ask.
        seed: Of the method.
        progress: Called inside the method.
        reference: Clean model of the same recipe; with it the repaired model's backdoor is tried to be woken.

    Returns:
        Status, cost and the figures before and after.
    """
    parts = triggers.parts
    classifier = case.classifier()
    triggers.used = False
    started, spent = time.monotonic(), sample_passes()
    probed = triggers.seconds, triggers.passes
    try:
        repaired = method(classifier, parts, triggers, seed, progress)
    except (NotApplicableError, ModelmendError) as error:
        return {"status": "not applicable" if isinstance(error, NotApplicableError) else "failed", "reason": str(error)}
    seconds, passes = time.monotonic() - started, sample_passes() - spent
    if triggers.used:  # a probe shared between methods counts for each of them, once
        seconds, passes = seconds + probed[0], passes + probed[1]
    before, after = final_measurement(case, classifier), final_measurement(case, repaired)
    small, large = count(repaired.graph, case.input_shape), count(classifier.graph, case.input_shape)
    parameters, macs = small.compression(large)
    return {
        "status": "done",
        "before": asdict(before),
        "after": asdict(after),
        **_ratings(before, after),
        "compression": parameters,
        "compression_macs": macs,
        "seconds": round(seconds, 2),
        "passes": passes,
        "probe_seconds": round(triggers.seconds, 2) if triggers.used else 0.0,
        "reactivation": None if reference is None else woken(case, reference, repaired, before.asr, seed),
    }


def _ratings(before: Figures, after: Figures) -> dict[str, float | None]:
    if before.asr is None or after.asr is None:
        return {"der": None, "rder": None}
    figures = before.acc, after.acc, before.asr, after.asr
    return {"der": der(*figures), "rder": relative_der(*figures)}


def run(
    cases: Sequence[Case],
    names: Sequence[str],
    seeds: Sequence[int],
    *,
    budget: int,
    effort: float,
    out: Path,
    progress: Progress,
    references: Mapping[tuple[str, str], Case] | None = None,
    fresh: bool = False,
) -> list[dict[str, Any]]:
    """Run all cells that ``out`` does not hold yet under the same settings and of the same methods.

    Args:
        cases: Models.
        names: Methods.
        seeds: Each draws another clean budget and seeds the method.
        budget: Clean samples of the defender.
        effort: Of the baselines.
        out: Folder of the cells' files.
        progress: Called after every cell and inside methods.
        references: Clean models by (data set, architecture), for re-activation.
        fresh: Run finished cells again too, as after a change of a method.
    """
    table = methods(effort)
    cells: list[dict[str, Any]] = []
    total = len(cases) * len(names) * len(seeds)
    (out / "cells").mkdir(parents=True, exist_ok=True)
    for case in cases:
        reference = (references or {}).get((case.recipe.dataset, case.recipe.arch))
        for seed in seeds:
            triggers: Triggers | None = None
            for name in names:
                path = out / "cells" / f"{case.name}--{name}--s{seed}.json"
                settings = {"budget": budget, "effort": effort, "code_version": __version__}
                settings["reactivation"] = reference is not None
                settings["code"] = method_code()
                cell = None if fresh else _finished(path, settings)
                if cell is None:
                    if triggers is None:
                        parts = divide(draw_budget(case.pool, budget, seed), seed)
                        triggers = Triggers(case.classifier(), parts, seed)
                    label = f"{case.name}, {name}, seed {seed}"
                    tell = _within(progress, label, len(cells), total)
                    cell = run_cell(case, table[name], triggers, seed, tell, reference=reference)
                    cell |= _description(case) | {"method": name, "seed": seed, "settings": settings}
                    part = path.with_suffix(".part")
                    write_json(part, cell)
                    part.replace(path)
                cells.append(cell)
                progress(f"{case.name}, {name}, seed {seed}", len(cells), total)
    return cells


@cache
def method_code() -> str:
    """Hash of everything that a method is made of, so that a changed one is run again."""
    rooms = (modelmend.probe, modelmend.pruning, modelmend.editing)
    return sha256_code(*rooms, modelmend.steps.mending, benchmarks.baselines, benchmarks.methods)


def _within(progress: Progress, label: str, done: int, total: int) -> Progress:
    return lambda message, step, steps: progress(f"{label}: {message} {step}/{steps}", done, total)


def _finished(path: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    cell: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return cell if cell["settings"] == settings else None


def _description(case: Case) -> dict[str, Any]:
    recipe = case.recipe
    return {
        "model": case.name,
        "data": case.data,
        "arch": recipe.arch,
        "attack": recipe.attack or "clean",
        "rate": recipe.rate if recipe.attack else None,
        "infected": case.infected,
    }


def machine() -> dict[str, Any]:
    """What the times were measured on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    everything = list(methods(1.0))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficacy", description=__doc__)
    case_options(parser, suite="smoke", budget=1000)
    parser.add_argument("--methods", default=",".join(everything), help=f"of {', '.join(everything)}")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--effort", type=float, help="share of the baselines' published steps")
    parser.add_argument("--reactivate", action="store_true", help="also try to wake the backdoor after each repair")
    parser.add_argument("--fresh", action="store_true", help="run finished cells again, as after a change of a method")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, default=Path(".work/efficacy"), help="finished cells there are not run again"
    )
    options = parser.parse_args(arguments)
    names = [name.strip() for name in options.methods.split(",") if name.strip()]
    if unknown := sorted(set(names) - set(everything)):
        parser.error(f"unknown method {', '.join(unknown)}; known: {', '.join(everything)}")
    torch.set_num_threads(options.threads)
    logging.getLogger("modelmend.redteam.sealed").setLevel(logging.WARNING)
    effort = EFFORT[options.suite] if options.effort is None else options.effort
    console = Console()
    try:
        everyone = read_cases(options.suite, options.data, options.zoo)
        cases = [case for case in everyone if wanted(case, options.only)]
        with Bar(console=console, transient=True) as bar:
            task = bar.add_task("efficacy", total=None)
            cells = run(
                cases,
                names,
                range(options.seeds),
                budget=options.budget,
                effort=effort,
                out=options.out / options.suite,
                references=clean_references(everyone) if options.reactivate else None,
                fresh=options.fresh,
                progress=lambda message, done, total: bar.update(
                    task, description=message, completed=done, total=total
                ),
            )
    except ModelmendError as error:
        console.print(f"error: {error}", style="red", markup=False)
        return 2
    settings = {"suite": options.suite, "budget": options.budget, "effort": effort, "seeds": options.seeds}
    text = markdown(cells, machine() | settings)
    write_json(options.out / f"{options.suite}.json", {"machine": machine(), "settings": settings, "cells": cells})
    (options.out / f"{options.suite}.md").write_text(text, encoding="utf-8")
    head, *rows = summary(cells)
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    console.print(table, f"all figures: {options.out / options.suite}.md")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
