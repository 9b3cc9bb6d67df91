"""Cells as a markdown table: means and spread over models and seeds, failed attacks and clean models apart."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Cell = Mapping[str, Any]
DRAWS = 10_000
"""Of a bootstrap."""

_COLUMNS: tuple[tuple[str, Callable[[Cell], float | None], float, int], ...] = (
    ("ACC before %", lambda c: c["before"]["acc"], 100, 1),
    ("ACC %", lambda c: c["after"]["acc"], 100, 1),
    ("ASR before %", lambda c: c["before"]["asr"], 100, 1),
    ("ASR %", lambda c: c["after"]["asr"], 100, 1),
    ("RA %", lambda c: c["after"]["ra"], 100, 1),
    ("DER %", lambda c: c["der"], 100, 1),
    ("rDER %", lambda c: c["rder"], 100, 1),
    ("params cut %", lambda c: c["compression"], 100, 1),
    ("MACs cut %", lambda c: c["compression_macs"], 100, 1),
    ("seconds", lambda c: c["seconds"], 1, 1),
    ("1000 passes", lambda c: c["passes"], 1e-3, 1),
)


def spread(values: Iterable[float | None], scale: float = 1, digits: int = 1) -> str:
    """``mean ± standard deviation`` of what is there; ``-`` when nothing is."""
    found = [value * scale for value in values if value is not None]
    if not found:
        return "-"
    if len(found) == 1:
        return f"{found[0]:.{digits}f}"
    return f"{statistics.fmean(found):.{digits}f} ± {statistics.stdev(found):.{digits}f}"


def interval(differences: dict[str, list[float]], seed: int = 0) -> tuple[float, float, float]:
    """Mean of paired differences and a 95 % percentile bootstrap interval over models.

    Args:
        differences: By model, one a seed; seeds of one model are averaged, so that they do not count as models.
        seed: Of the draws.

    Returns:
        Mean, lower and upper end; of a single model the ends are NaN.
    """
    means = np.array([statistics.fmean(values) for values in differences.values()])
    if len(means) < 2:
        return float(means.mean()), float("nan"), float("nan")
    drawn = np.random.default_rng(seed).integers(len(means), size=(DRAWS, len(means)))
    low, high = np.quantile(means[drawn].mean(1), (0.025, 0.975))
    return float(means.mean()), float(low), float(high)


def _rows(cells: Sequence[Cell], key: Callable[[Cell], tuple[str, ...]]) -> list[str]:
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    rows = []
    for names, group in groups.items():
        done = [cell for cell in group if cell["status"] == "done"]
        figures = [spread((get(c) for c in done), scale, digits) for _, get, scale, digits in _COLUMNS]
        rows.append("| " + " | ".join([*names, f"{len(done)}/{len(group)}", *figures]) + " |")
    return rows


def _table(first: Sequence[str], rows: Sequence[str]) -> str:
    heads = [*first, "n", *(title for title, *_ in _COLUMNS)]
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *rows])


def summary(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """Rows ``(method, n, ACC, ASR, RA, DER, seconds)`` over the infected models, for a terminal; a head row first."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        if cell["infected"]:
            groups.setdefault(cell["method"], []).append(cell)
    rows: list[tuple[str, ...]] = [("method", "n", "ACC %", "ASR %", "RA %", "DER %", "seconds")]
    for method, group in groups.items():
        done = [cell for cell in group if cell["status"] == "done"]
        rates = [spread((c["after"][name] for c in done), 100) for name in ("acc", "asr", "ra")]
        rating, seconds = spread((c["der"] for c in done), 100), spread(c["seconds"] for c in done)
        rows.append((method, f"{len(done)}/{len(group)}", *rates, rating, seconds))
    return rows


def markdown(cells: Sequence[Cell], settings: Mapping[str, Any]) -> str:
    """All tables of one run.

    Args:
        cells: Of ``efficacy.run``.
        settings: Machine and settings, stated on top.
    """
    infected = [c for c in cells if c["infected"]]
    clean = [c for c in cells if c["attack"] == "clean"]
    failed = sorted({c["model"] for c in cells if not c["infected"] and c["attack"] != "clean"})
    broken = [c for c in cells if c["status"] != "done"]
    parts = [
        "# Efficacy",
        ", ".join(f"{key} {value}" for key, value in settings.items()) + ".",
        "Mean ± standard deviation over models and seeds; n = finished of all. ACC, ASR, RA: half B of the test file, "
        "true trigger; the clean budget is from half A. DER in its usual form; rDER = DER / its ceiling.",
        f"Models: {len({c['model'] for c in infected})} infected "
        f"({', '.join(sorted({c['data'] for c in infected}))}; {', '.join(sorted({c['arch'] for c in infected}))}; "
        f"{', '.join(sorted({c['attack'] for c in infected}))}), {len({c['model'] for c in clean})} clean.",
        "## Infected models, by method",
        _table(["method"], _rows(infected, lambda c: (c["method"],))),
    ]
    if clean:
        parts += ["## Clean models: what a repair costs", _table(["method"], _rows(clean, lambda c: (c["method"],)))]
    heads = ["data", "arch", "attack", "poison %", "method"]
    parts += ["## By model", _table(heads, _rows([*infected, *clean], _by_model))]
    if failed:
        parts += ["## Failed attacks (true ASR under 80 %), left out above", "\n".join(f"- {name}" for name in failed)]
    woken = [c for c in infected if c.get("reactivation")]
    if woken:
        parts += ["## Re-activation: ASR after trying to wake the backdoor", _woken_table(woken)]
    if broken:
        lines = [f"- {c['model']}, {c['method']}, seed {c['seed']}: {c['status']}: {c['reason']}" for c in broken]
        parts += ["## Not finished", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def _woken_table(cells: Sequence[Cell]) -> str:
    """Excess is 0 for a clean model of the same recipe and 1 for the infected one."""
    groups: dict[str, list[Mapping[str, float | None]]] = {}
    for cell in cells:
        groups.setdefault(cell["method"], []).append(cell["reactivation"])
    names = ("retuned", "retuned_excess", "queried", "queried_excess")
    rows = [
        "| " + " | ".join([method, str(len(group)), *(spread((g[name] for g in group), 100) for name in names)]) + " |"
        for method, group in groups.items()
    ]
    head = "| method | n | re-tuned ASR % | excess % | queried ASR % | excess % |"
    return "\n".join([head, "|---|---|---|---|---|---|", *rows])


def _by_model(cell: Cell) -> tuple[str, ...]:
    rate = "-" if cell["rate"] is None else f"{cell['rate'] * 100:g}"
    return (cell["data"], cell["arch"], cell["attack"], rate, cell["method"])
