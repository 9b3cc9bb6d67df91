"""What was cut, as pictures: the neuron graph with the agent's path, and the samples that excite each cut group."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelmend.errors import InputError, printable

if TYPE_CHECKING:
    from torch import Tensor

RED, GREY, DARK = "#c0392b", "#95a5a6", "#2c3e50"
LINES = {"flow": "#2e6da4", "similar": "#b7950b"}
LABEL = {
    "fontsize": 8,
    "va": "center",
    "zorder": 5,
    "bbox": {"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75},
    "arrowprops": {"arrowstyle": "-", "color": RED, "linewidth": 0.6},
}
LINE = 0.028
"""Height of a label when a layer is 1 high."""
LONG = 24
"""Letters of a layer's name that fit under it."""
FEW_LAYERS = 6
"""Layers beside each other with room for level names and for the groups' numbers."""


@dataclass(frozen=True)
class Excited:
    """The samples that excite one group most.

    Attributes:
        title: Of the group and the trigger.
        clean: Image ``(1 or 3, H, W)`` in 0..1 and caption.
        triggered: Image, the same with a trigger, and caption.
    """

    title: str
    clean: Sequence[tuple[Tensor, str]]
    triggered: Sequence[tuple[Tensor, Tensor, str]]


def draw(graph: Mapping[str, Any], explanation: Mapping[str, Any], path: Path) -> None:
    """Draw the graph (layers left to right, cut groups red, the agent's path numbered) over the path's rewards.

    Args:
        graph: From ``explanation.stored_graph``, or its JSON.
        explanation: From ``explain``, or its JSON.
        path: File to write; the suffix names the format (``.svg``, ``.png``).

    Raises:
        InputError: matplotlib is not installed.
    """
    figure = _figure(min(20.0, max(11.0, 0.9 * len(graph["layers"]))), 9)
    nodes, search = figure.subplots(2, 1, height_ratios=[3, 1])
    figure.legend(handles=_marks(), fontsize=8, loc="outside upper center", ncols=6, frameon=False)
    _graph(nodes, graph, explanation["path"])
    _path(search, explanation["path"], explanation.get("probe", ()))
    _save(figure, path)


def draw_samples(rows: Sequence[Excited], path: Path) -> None:
    """Draw a row a group: its most exciting samples as they are, then its most exciting triggered ones in pairs.

    Args:
        rows: One a group.
        path: File to write.

    Raises:
        InputError: matplotlib is not installed.
    """
    clean = max(len(row.clean) for row in rows)
    pairs = max(len(row.triggered) for row in rows)
    figure = _figure(1.25 * clean + 2.3 * pairs + 1.6, 1.55 * len(rows) + 0.7)
    figure.suptitle(
        "samples that excite each cut group most: sample, class, activation of the group\n"
        "left: as they are; right, in pairs: without and with the probe's candidate trigger",
        fontsize=10,
    )
    widths = [1.0] * clean + [0.15] + [2.0] * pairs
    axes = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths)
    for line, row in zip(axes, rows, strict=True):
        for cell in line:
            cell.set_axis_off()
        look = {"ha": "right", "va": "center", "fontsize": 8, "parse_math": False}
        line[0].text(-0.15, 0.5, row.title, transform=line[0].transAxes, **look)
        for cell, (image, caption) in zip(line, row.clean, strict=False):
            _image(cell, [image], caption)
        for cell, (before, after, caption) in zip(line[clean + 1 :], row.triggered, strict=False):
            _image(cell, [before, after], caption)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("pictures need matplotlib", fix="pip install 'modelmend[plots]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else None)


def _graph(axes: Any, graph: Mapping[str, Any], path: Sequence[Mapping[str, Any]]) -> None:
    at, cuts = _positions(graph["nodes"]), [row["group"] for row in path]
    heights = _heights(at, cuts)
    drawn = [e for e in graph["edges"] if e["from"] in cuts or e["to"] in cuts]
    for edge in drawn:
        between = edge["from"] in cuts and edge["to"] in cuts
        look = {"color": RED if between else LINES[edge["type"]], "linewidth": 1.6 if between else 0.8}
        _arc(axes, at[edge["from"]], at[edge["to"]], "-", -0.2, alpha=0.15 + 0.55 * edge["strength"], **look)
    for a, b in itertools.pairwise(cuts):
        _arc(axes, at[a], at[b], "-|>", 0.45, color=DARK, linewidth=1.2, linestyle="--", zorder=4)
    size = [14 + 14 * min(4.0, max(0.0, node["contrast"])) for node in graph["nodes"]]
    colour = [RED if g in cuts else GREY for g in range(len(at))]
    axes.scatter([x for x, _ in at], [y for _, y in at], s=size, c=colour, zorder=3)
    for step, group in enumerate(cuts, 1):
        text = f"{step}: {group}" if len(graph["layers"]) <= FEW_LAYERS else str(step)
        axes.annotate(text, at[group], xytext=(9, heights[group]), textcoords=("offset points", "data"), **LABEL)
    layers = [printable(name) for name in graph["layers"]]
    names = [name if len(name) <= LONG else f"…{name[1 - LONG :]}" for name in layers]
    turn = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(names) > FEW_LAYERS else {}
    axes.set_xticks(range(len(names)), names, fontsize=8, parse_math=False, **turn)
    axes.set_xlim(-0.5, len(names) - 0.4)
    axes.set_ylim(-0.05, 1.05)
    axes.set_yticks([])
    axes.set_title("neuron groups by layer; a larger dot answers the probe's triggers more", loc="left", fontsize=10)
    kept, total = len(graph["edges"]), graph["edges_total"]
    if kept < total:
        told = f"the file holds {kept} of {total} edges: those at cuts first, then the strongest"
        axes.set_title(told, loc="right", fontsize=7, color=GREY)


def _positions(nodes: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Where each group stands: its layer across, its place in the layer upwards in 0..1."""
    sizes = Counter(node["layer"] for node in nodes)
    seen: Counter[int] = Counter()
    found = []
    for layer in (node["layer"] for node in nodes):
        last = sizes[layer] - 1
        found.append((float(layer), seen[layer] / last if last else 0.5))
        seen[layer] += 1
    return found


def _heights(at: Sequence[tuple[float, float]], cuts: Sequence[int]) -> dict[int, float]:
    """Height of each cut's label: its group's, moved up where it would cover the label below."""
    heights: dict[int, float] = {}
    last: dict[float, float] = {}
    for group in sorted(cuts, key=lambda g: at[g][1]):
        x, y = at[group]
        heights[group] = last[x] = max(y, last.get(x, -1.0) + LINE)
    return heights


def _arc(axes: Any, a: tuple[float, float], b: tuple[float, float], style: str, bend: float, **look: Any) -> None:
    """A line from a to b; bent, so that it shows between groups of one layer, where a straight one would hide."""
    from matplotlib.patches import FancyArrowPatch

    bend = bend if a[0] == b[0] else bend / 3
    if a[1] > b[1]:
        bend = -bend  # always to the same side of the layer
    axes.add_patch(
        FancyArrowPatch(
            a, b, arrowstyle=style, connectionstyle=f"arc3,rad={bend}", mutation_scale=10, shrinkA=4, shrinkB=4, **look
        )
    )


def _marks() -> list[Any]:
    """What the marks mean."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], marker="o", linestyle="", color=RED, label="cut (step: group)"),
        Line2D([], [], marker="o", linestyle="", color=GREY, label="kept"),
        Line2D([], [], color=DARK, linestyle="--", label="agent's path"),
        Line2D([], [], color=RED, label="edge between two cuts"),
        Line2D([], [], color=LINES["flow"], label="flow from or to a cut"),
        Line2D([], [], color=LINES["similar"], label="similar to a cut"),
    ]


def _path(axes: Any, path: Sequence[Mapping[str, Any]], probe: Sequence[Mapping[str, Any]]) -> None:
    steps = [0, *(row["step"] for row in path)]
    before = [sum(row["weight"] * row["before"] for row in probe)] if probe else []
    left = [*before, *(row["success"] for row in path)]
    axes.plot(steps, [0.0, *(row["reward"] for row in path)], "o-", color=DARK, label="reward")
    axes.plot(steps[len(steps) - len(left) :], left, "s--", color=RED, label="probe success left")
    axes.set_xticks(steps, ["uncut", *(f"{row['step']}:\n{row['group']}" for row in path)], fontsize=8)
    axes.set_xlabel("step and group, in the order in which the agent cuts", fontsize=8)
    axes.set_ylim(min(-0.05, axes.get_ylim()[0]), 1.05)
    axes.legend(fontsize=7, loc="center right")


def _image(axes: Any, images: Sequence[Tensor], caption: str) -> None:
    """Images side by side with a white line between them."""
    import torch

    gap = torch.ones(*images[0].shape[:-1], max(1, images[0].shape[-1] // 12))
    parts = [part for image in images for part in (image, gap)][:-1]
    sheet = torch.cat(parts, dim=-1).clamp(0, 1).movedim(0, -1).squeeze(-1).numpy()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(caption, fontsize=7, pad=2)
