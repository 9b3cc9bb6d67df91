"""The neuron graph and the agent's path as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from modelmend.errors import InputError
from modelmend.pruning.explanation import Evidence


def draw(evidence: Evidence, explanation: dict[str, Any], path: Path) -> None:
    """Write the graph (layers left to right, cut groups red, their edges drawn) over the path of rewards.

    Args:
        evidence: Of the search.
        explanation: From ``explain``.
        path: File to write; the suffix names the format (``.svg``, ``.png``).

    Raises:
        InputError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib", fix="pip install 'modelmend[plots]'") from error
    figure = Figure(figsize=(11, 7), layout="constrained")
    nodes, search = figure.subplots(2, 1, height_ratios=[3, 1])
    _graph(nodes, evidence)
    _path(search, explanation["path"])
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def _graph(axes: Any, evidence: Evidence) -> None:
    graph, cut = evidence.graph, set(evidence.chosen.cut)
    x = graph.layer.float()
    y = torch.zeros(len(x))
    for number in torch.unique(graph.layer):
        mine = graph.layer == number
        y[mine] = torch.linspace(0, 1, int(mine.sum()))
    touched = [e for e, (a, b) in enumerate(graph.edge_index.T.tolist()) if a in cut and b in cut and a < b]
    for e in touched:
        a, b = graph.edge_index[:, e].tolist()
        style = "-" if int(graph.edge_type[e]) else ":"
        axes.plot([x[a], x[b]], [y[a], y[b]], style, color="#c0392b", alpha=0.6, linewidth=1)
    size = 12 + 10 * evidence.attributes.x[:, 13].clamp(0, 4)
    colour = ["#c0392b" if g in cut else "#7f8c8d" for g in range(len(x))]
    axes.scatter(x, y, s=size, c=colour, zorder=2)
    for card in cut:
        axes.annotate(
            str(card), (float(x[card]), float(y[card])), xytext=(4, 0), textcoords="offset points", fontsize=7
        )
    names = list(dict.fromkeys(g.layer for g in evidence.groups))
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)
    axes.set_yticks([])
    axes.set_title(
        "groups by layer; size: probe contrast; red: cut; lines: similar (dotted) and flow edges between cuts"
    )


def _path(axes: Any, path: list[dict[str, Any]]) -> None:
    steps = [0, *(row["step"] for row in path)]
    axes.plot(steps, [0.0, *(row["reward"] for row in path)], "o-", color="#2c3e50", label="reward")
    if path:
        axes.plot(steps[1:], [row["success"] for row in path], "s--", color="#c0392b", label="probe success")
    axes.set_xticks(steps, ["uncut", *(str(row["group"]) for row in path)], fontsize=7)
    axes.set_xlabel("groups in the order in which the agent cuts them")
    axes.legend(fontsize=7)
