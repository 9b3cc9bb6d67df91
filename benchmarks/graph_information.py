"""What do neighbours tell about the worth of a cut: ``python -m benchmarks.graph_information --data DIR``.

A graph network can only pay where a group's neighbours know something that its own attributes do not. So: search, take
the best mask, put every group in or take it out (its worth beside the others; and alone), and predict that rank from
attributes, each network left out in turn. Beside it: what own attributes leave unexplained, against the same of the
neighbours, with and without what is common to the layer. One file of figures a network in ``--out``; finished ones are
not measured again.
"""

from __future__ import annotations

import argparse
import logging
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.stats import rankdata, spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict

from benchmarks.ablation import arms, pose, run_arm, shared
from benchmarks.cases import Case, case_options, read_cases, wanted

Floats = NDArray[np.float64]
Figures = dict[str, Floats]
TARGETS = ("beside the best mask", "alone")
SETS = {"own": (0,), "own and similar": (0, 1), "own and flow": (0, 2), "own and both": (0, 1, 2)}
ALPHAS = (1.0, 10.0, 100.0, 1000.0)


def measure(case: Case, budget: int, seed: int, cache: Path) -> Figures:
    """Attributes, wiring, and the worth of every group of one network."""
    problem = pose(case, budget, seed, cache)
    judge = shared(problem.judge)
    found = run_arm(problem, judge, arms()["agent"], seed)
    groups = len(problem.groups)
    cut = torch.zeros(groups, dtype=torch.bool)
    cut[found["cut"]] = True
    other = cut.repeat(groups, 1) ^ torch.eye(groups, dtype=torch.bool)
    reward = judge(~torch.cat([cut[None], other])).reward
    beside = torch.where(cut, reward[0] - reward[1:], reward[1:] - reward[0])
    graph = problem.environment(judge=judge)[0].graph
    told = torch.cat([problem.attributes.x, graph.prior[:, None]], 1)
    tensors = {"x": told, "layer": graph.layer, "edge": graph.edge_index, "strength": graph.edge_attr}
    tensors |= {TARGETS[0]: beside, TARGETS[1]: judge(~torch.eye(groups, dtype=torch.bool)).reward}
    return {name: value.double().numpy() for name, value in tensors.items()}


def neighbourly(figures: Figures, values: Floats, kind: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Strength-weighted mean of each group's neighbours ``(G, ...)`` over one edge type, and who has any."""
    source, target = figures["edge"].astype(int)
    weight = figures["strength"][:, kind] * figures["strength"][:, -1]
    total, mean = np.zeros(len(values)), np.zeros_like(values)
    np.add.at(total, target, weight)
    np.add.at(mean, target, values[source] * (weight if values.ndim == 1 else weight[:, None]))
    scale = np.maximum(total, 1e-9)
    return mean / (scale if values.ndim == 1 else scale[:, None]), total > 0


def predicted(networks: Sequence[Figures], target: str, columns: Sequence[int]) -> list[float]:
    """Rank correlation of predicted and measured worth, each network left out in turn."""
    x = [
        np.concatenate([(f["x"], neighbourly(f, f["x"], 0)[0], neighbourly(f, f["x"], 1)[0])[c] for c in columns], 1)
        for f in networks
    ]
    y = [rankdata(f[target]) / len(f[target]) for f in networks]
    found = []
    for i in range(len(networks)):
        rest = [j for j in range(len(networks)) if j != i]
        model = RidgeCV(alphas=ALPHAS).fit(np.concatenate([x[j] for j in rest]), np.concatenate([y[j] for j in rest]))
        found.append(_rho(model.predict(x[i]), y[i]))
    return found


def left_over(figures: Figures, target: str) -> list[float]:
    """Rank correlation of what own attributes leave unexplained with the same of others.

    Returns:
        Similar neighbours, flow neighbours, the rest of the layer; then similar and flow less the rest of the layer.
    """
    y = rankdata(figures[target]) / len(figures[target])
    rest = y - cross_val_predict(RidgeCV(alphas=ALPHAS), figures["x"], y, cv=10)
    layer = figures["layer"]
    others = [(layer == layer[i]) & (np.arange(len(y)) != i) for i in range(len(y))]
    common = np.array([rest[mine].mean() if mine.any() else 0.0 for mine in others])
    found = []
    for values in (rest, rest - common):
        for kind in (0, 1):
            mean, some = neighbourly(figures, values, kind)
            found.append(_rho(mean[some], values[some]))
    return [*found[:2], _rho(common, rest), *found[2:]]


def _rho(one: Floats, other: Floats) -> float:
    return float(spearmanr(one, other).statistic)


def table(networks: Sequence[Figures]) -> str:
    """Means over networks, a row a set of attributes and a row a kind of neighbour."""
    lines = ["| worth of a cut, predicted from | " + " | ".join(TARGETS) + " |", "|---|---|---|"]
    for name, columns in SETS.items():
        figures = [statistics.fmean(predicted(networks, target, columns)) for target in TARGETS]
        lines.append(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    rows = {target: [left_over(f, target) for f in networks] for target in TARGETS}
    names = ("similar", "flow", "rest of the layer", "similar, less the layer's", "flow, less the layer's")
    for place, name in enumerate(names):
        means = [statistics.fmean(row[place] for row in rows[target]) for target in TARGETS]
        lines.append(f"| left over, against {name} | " + " | ".join(f"{figure:.2f}" for figure in means) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.graph_information", description=__doc__)
    case_options(parser, suite="calibration", budget=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(".work/graph_information"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.getLogger("modelmend.redteam.sealed").setLevel(logging.WARNING)
    options.out.mkdir(parents=True, exist_ok=True)
    networks = []
    for case in read_cases(options.suite, options.data, options.zoo):
        if not wanted(case, options.only) or not case.infected:
            continue
        path = options.out / f"{case.name}-{options.budget}-{options.seed}.safetensors"
        if not path.is_file():
            save_file(measure(case, options.budget, options.seed, options.out / "triggers"), path)
        networks.append(load_file(path))
        print(case.name, flush=True)
    print(table(networks) if len(networks) > 1 else "at least two infected models are needed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
