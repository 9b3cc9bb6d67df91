"""Does a policy learned on other networks help on the next one? ``python -m benchmarks.transfer --data DIR --policy DIR``.

Three searches a model, against the same triggers and the same judge: ``zero-shot`` (the trained policy searches and
takes no gradient step), ``adapted`` (it goes on learning) and ``from scratch`` (an untrained policy that starts from
the best rule). Each is read off after so many judged masks, those of the rules not counted; the true ASR and clean
accuracy of its best mask come from half B. Aim: adapted is where from scratch ends in a third of the masks. Models
that the policy has learned on are left out. One JSON a case in ``--out``; finished cases are not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
from collections.abc import Callable, Sequence
from importlib.resources import as_file
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablation import CHECKPOINTS, Arm, pose, reward_at, run_arm, shared
from benchmarks.cases import Case, case_options, read_cases, wanted
from benchmarks.efficacy import machine
from benchmarks.measure import final_measurement
from benchmarks.table import interval
from modelmend.artifacts import sha256_file, write_json
from modelmend.pruning.onp import cut_clone
from modelmend.pruning.ppo import PPOConfig
from modelmend.pruning.pretrain import SHIPPED, WEIGHTS, load_policy, read_about

ALL = CHECKPOINTS[-1]
THIRD = 133
MARKS = (25, 50, 100, THIRD, 200, ALL)
TRAINED = ("zero-shot", "adapted")

Cell = dict[str, Any]


def arms(folder: Path) -> dict[str, Arm]:
    """The three searches by name."""
    ppo = PPOConfig(masks=ALL, iterations=80, patience=ALL, experience=True)
    still = ppo.model_copy(update={"learn": False, "iterations": ALL})
    return {"zero-shot": Arm(still, folder=folder), "adapted": Arm(ppo, folder=folder), "from scratch": Arm(ppo)}


def run_case(case: Case, budget: int, seed: int, triggers: Path, folder: Path) -> Cell:
    """All searches on one case."""
    problem, classifier = pose(case, budget, seed, triggers), case.classifier()
    judge, before = shared(problem.judge), final_measurement(case, classifier)
    rows = {name: run_arm(problem, judge, arm, seed) for name, arm in arms(folder).items()}
    for row in rows.values():
        after = final_measurement(case, cut_clone(classifier, problem.groups, row["cut"]))
        row |= {"asr": after.asr, "acc": after.acc, "drop": before.acc - after.acc}
    figures = {"asr": before.asr, "acc": before.acc, "groups": len(problem.groups)}
    return {"case": case.name, "seed": seed, "budget": budget, **figures, "arms": rows}


def learned_on(case: Case, recipe: dict[str, Any]) -> dict[str, bool]:
    """Whether the policy has learned on this very model, and whether on its attack, architecture, data set."""
    models = recipe.get("models", [])
    seen = {key: any(m.get(key) == getattr(case.recipe, key) for m in models) for key in ("attack", "arch", "dataset")}
    return {"model": any(m.get("name") == case.name for m in models), **seen}


def at(row: dict[str, Any], masks: int) -> float:
    """Best reward of a search after so many masks."""
    return reward_at(row["rule"], row["curve"], masks)


def masks_to(row: dict[str, Any], reward: float) -> int | None:
    """After how many masks a search has reached a reward; 0: its rule has; ``None``: never."""
    if row["rule"] >= reward - 1e-9:
        return 0
    return next((number for number, reached in row["curve"] if reached >= reward - 1e-9), None)


def paired(cells: Sequence[Cell], difference: Callable[[dict[str, Any]], float]) -> str:
    """``mean [low, high]`` of a difference between the arms of one case."""
    by_model: dict[str, list[float]] = {}
    for cell in cells:
        by_model.setdefault(cell["case"], []).append(difference(cell["arms"]))
    mean, low, high = (round(figure, 3) + 0.0 for figure in interval(by_model))
    return f"{mean:+.3f}" + ("" if math.isnan(low) else f" [{low:+.3f}, {high:+.3f}]")


def table(cells: Sequence[Cell]) -> str:
    """Means over cases, paired differences with intervals, and how many masks adapting needs."""
    heads = ["search", "n", *(f"reward at {m}" for m in MARKS), "ASR % mean", "ASR % worst", "ACC drop mean"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in (*TRAINED, "from scratch"):
        rows = [cell["arms"][name] for cell in cells]
        rewards = [f"{statistics.fmean(at(row, mark) for row in rows):.3f}" for mark in MARKS]
        rates, drops = [100 * row["asr"] for row in rows], [100 * row["drop"] for row in rows]
        truth = [f"{statistics.fmean(rates):.1f}", f"{max(rates):.1f}", f"{statistics.fmean(drops):.1f}"]
        lines.append("| " + " | ".join([name, str(len(rows)), *rewards, *truth]) + " |")

    lines += ["", "| reward less that of from scratch, mean [95 %] | zero-shot | adapted |", "|---|---|---|"]
    for mark in MARKS:
        figures = [paired(cells, lambda a, n=n, m=mark: at(a[n], m) - at(a["from scratch"], m)) for n in TRAINED]
        lines.append(f"| both at {mark} | " + " | ".join(figures) + " |")
    figures = [paired(cells, lambda a, n=n: at(a[n], THIRD) - at(a["from scratch"], ALL)) for n in TRAINED]
    lines.append(f"| at {THIRD}, from scratch at {ALL} | " + " | ".join(figures) + " |")
    return "\n".join([*lines, "", needed(cells)])


def needed(cells: Sequence[Cell]) -> str:
    """Masks that the adapted search needs to the final reward of the one from scratch, in words."""
    found = [masks_to(c["arms"]["adapted"], at(c["arms"]["from scratch"], ALL)) for c in cells]
    median = statistics.median(float("inf") if masks is None else masks for masks in found)
    quick = sum(masks is not None and masks <= THIRD for masks in found)
    return (
        f"Masks that adapted needs to reach what from scratch has at {ALL}: median "
        f"{f'over {ALL}' if median == float('inf') else f'{median:g}'}; within {THIRD} in {quick} of {len(found)} cases, "
        f"never in {found.count(None)}."
    )


def run(options: argparse.Namespace, folder: Path) -> list[Cell]:
    """Run what is not finished; cells of the models that are new to the policy."""
    load_policy(folder)
    recipe, weights = read_about(folder)["recipe"], sha256_file(folder / WEIGHTS)
    cells = []
    for case in read_cases(options.suite, options.data, options.zoo):
        if not wanted(case, options.only) or not case.infected:
            continue
        seen = learned_on(case, recipe)
        if seen["model"]:
            print(case.name, "left out: the policy has learned on it", flush=True)
            continue
        for seed in range(options.seeds):
            path = options.out / weights[7:19] / f"{case.name}-{options.budget}-{seed}.json"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                cell = run_case(case, options.budget, seed, options.triggers or options.out / "triggers", folder)
                write_json(path, {**cell, "policy": weights, "seen": seen, "machine": machine()})
            cells.append(json.loads(path.read_text(encoding="utf-8")))
            told = {name: (round(at(row, ALL), 3), row["asr"]) for name, row in cells[-1]["arms"].items()}
            print(case.name, "seed", seed, told, flush=True)
    return cells


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    case_options(parser, suite="small", budget=500)
    parser.add_argument("--policy", default="shipped", help="folder of `modelmend policy train`, or shipped")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(".work/transfer"))
    parser.add_argument("--triggers", type=Path, help="where triggers are kept; default: in --out")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.getLogger("modelmend.redteam.sealed").setLevel(logging.WARNING)
    with as_file(SHIPPED) as shipped:
        cells = run(options, shipped if options.policy == "shipped" else Path(options.policy))
    print("\n" + table(cells) if cells else "no infected model that is new to the policy")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
