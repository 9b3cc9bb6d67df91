"""Figures for inline SVG: positions and sizes only, the templates draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]
_MANY_CLASSES = 24


def residuals(facts: Mapping[str, Any]) -> list[Row]:
    """A row for each family and class: success before and after with its upper end and bound, as shares 0..1."""
    card, decision = facts.get("scorecard") or {}, facts.get("decision") or {}
    checks = {check.get("name"): check for check in decision.get("checks") or []}
    rows = []
    for item in card.get("residuals") or []:
        check = checks.get(f"backdoor.{item.get('role')}.{item.get('family')}.{item.get('target')}") or {}
        after = item.get("after") or {}
        rows.append(
            {
                "label": f"{item.get('family')}, class {item.get('target')}",
                "role": "used in the repair" if item.get("role") == "used" else "kept back",
                "before": _share((item.get("before") or {}).get("value")),
                "after": _share(after.get("value")),
                "high": _share(check.get("high", after.get("high"))),
                "bound": _share(check.get("bound")),
                "floor": _share((item.get("floor") or {}).get("high")),
                "outcome": check.get("outcome", ""),
            }
        )
    return rows


def classes(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Families by classes: shade of each cell relative to its family's largest, 0..1; the strongest classes only."""
    found = facts.get("evidence") or {}
    rows = [row for row in found.get("classes") or [] if row and isinstance(row.get("target"), int)]
    strongest = sorted(rows, key=lambda row: -(row.get("anomaly") or 0.0))
    labels = list(dict.fromkeys(row.get("target") for row in strongest))[:_MANY_CLASSES]
    table = []
    for family in dict.fromkeys(row.get("family") for row in rows):
        mine = {row.get("target"): row for row in rows if row.get("family") == family}
        top = max((max(row.get("anomaly") or 0.0, 0.0) for row in mine.values()), default=0.0)
        cells = []
        for label in sorted(labels):
            row = mine.get(label) or {}
            anomaly = row.get("anomaly")
            strength = 0.0 if not anomaly or top <= 0 else max(0.0, anomaly) / max(top, 3.5)
            cells.append({**row, "label": label, "shade": round(strength, 3)})
        table.append({"family": family, "cells": cells})
    every = len({row.get("target") for row in rows})
    return {"labels": sorted(labels), "table": table, "left_out": max(0, every - len(labels))}


def layers(facts: Mapping[str, Any]) -> list[Row]:
    """Relative size of the edit of each tensor, largest first, at most thirty."""
    sizes = (facts.get("edit") or {}).get("layers") or {}
    if not isinstance(sizes, Mapping):
        return []
    known = [(str(name), float(size)) for name, size in sizes.items() if isinstance(size, (int, float)) and size > 0]
    known.sort(key=lambda item: -item[1])
    top = known[0][1] if known else 1.0
    return [{"label": name, "size": size, "share": size / top} for name, size in known[:30]]


def stages(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Seconds and sample passes of each stage, as shares of the largest."""
    longest = max((float(row.get("seconds") or 0.0) for row in rows), default=0.0)
    return [
        {
            "label": str(row.get("step", "")).replace("_", " "),
            "seconds": float(row.get("seconds") or 0.0),
            "passes": row.get("passes"),
            "digest": row.get("digest"),
            "share": float(row.get("seconds") or 0.0) / longest if longest else 0.0,
        }
        for row in rows
    ]


def _share(value: Any) -> float | None:
    return min(1.0, max(0.0, float(value))) if isinstance(value, (int, float)) else None
