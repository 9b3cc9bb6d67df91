"""A small search's record: six groups in two layers, two of them cut; for tests of what shows it."""

from __future__ import annotations

from typing import Any

TRIGGERS = [
    {"family": "patch", "target": 1},
    {"family": "additive", "target": 1},
    {"family": "patch x1.5", "target": 1},
    {"family": "additive x1.5", "target": 1},
    {"family": "patch", "target": 1},  # found again on a pruned network
]
"""Of the last round, in the order of ``top_triggered``."""
LAYER_OF = (0, 0, 0, 1, 1, 1)
EDGES = ((4, 5, "similar", 0.9), (1, 4, "flow", 0.8), (0, 3, "flow", 1.0), (2, 5, "flow", 0.4))
CUT = (5, 4)
"""In the order of the path."""


def top(*samples: int, most: float) -> list[dict[str, Any]]:
    return [{"sample": s, "activation": most - i / 10} for i, s in enumerate(samples)]


def card(group: int, step: int, **changes: Any) -> dict[str, Any]:
    base = {
        "group": group,
        "layer": "conv2",
        "kind": "channel",
        "channels": [group - 3],
        "step": step,
        "leave_one_out": {"success_without_it": 0.25, "accuracy_without_it": 0.012, "reward_without_it": -0.21},
        "attributes": [
            {"name": "trigger gradient", "value": 4.5, "deviations": 2.75, "layer_mean": 0.5, "percentile": 1.0}
        ],
        "because": [{"name": "rank under the best rule", "share": 0.4}, {"name": "probe contrast", "share": 0.07}],
        "because_of_groups": [{"group": 1, "share": 0.125}],
        "because_of_edges": [{"from": 1, "to": group, "share": 0.33}],
        "fidelity_plus": 1.0,
        "fidelity_minus": 0.0,
        "neighbours": [{"group": 9 - group, "type": "similar", "strength": 0.9, "cut": True}],
        "top_clean": top(2, 0, 1, most=1.5),
        "top_triggered": [
            top(3, 2, most=5.0),
            top(0, 1, most=8.0),
            top(3, 2, most=9.0),
            top(0, 1, most=9.0),
            top(1, 2, most=7.0),
        ],
    }
    return {**base, **changes}


def path() -> list[dict[str, Any]]:
    figures = ((0.43, 1, 0.6), (0.0047, 7, 0.2))
    return [
        {
            "step": i + 1,
            "group": CUT[i],
            "probability": p,
            "rank": rank,
            "success": success,
            "drop": 0.004,
            "reward": 0.9 - success,
            "value_of_stopping": 0.125,
        }
        for i, (p, rank, success) in enumerate(figures)
    ]


def explanation(**changes: Any) -> dict[str, Any]:
    """As in ``pruning.json``; the effect of group 4 is the larger one, so that its card comes first."""
    pairs = (("additive", 0.75, 0.9, 0.1), ("patch", 0.25, 1.0, 0.5))
    base = {
        "cards": [card(4, 2), card(5, 1, layer="conv2")],
        "path": path(),
        "probe": [
            {"family": f, "target": 1, "weight": w, "before": before, "after": after} for f, w, before, after in pairs
        ],
        "listed": [4, 5],
        "score": 0.62,
        "low": 0.31,
        "high": 0.81,
        "random": 0.17,
        "characterization": 0.45,
        "fidelity_plus": 0.5,
        "fidelity_minus": 0.25,
        "share": 1.0,
        "random_share": 0.11,
    }
    return {**base, **changes}


def graph() -> dict[str, Any]:
    """As in ``graph.json``; of ten edges four were kept."""
    return {
        "layers": ["conv1", "conv2"],
        "nodes": [{"layer": layer, "depth": float(layer), "contrast": 0.5 * i} for i, layer in enumerate(LAYER_OF)],
        "edges": [{"from": a, "to": b, "type": kind, "strength": strength} for a, b, kind, strength in EDGES],
        "edges_total": 10,
    }


def log() -> list[dict[str, Any]]:
    """As in ``search.jsonl``."""
    before = [0.9, 1.0, 1.0, 1.0]
    return [
        {"event": "graph", "groups": 6, "layers": ["conv1", "conv2"]},
        {"event": "rules", "round": 0, "triggers": TRIGGERS[:4], "success_before": before, "rules": []},
        {"event": "rules", "round": 1, "triggers": TRIGGERS, "success_before": before, "rules": []},
        {"event": "candidate", "cut": [4], "reward": 0.5, "select_drop": 0.9, "score": 0.5},
        {"event": "candidate", "cut": [4, 5], "reward": 0.7, "select_drop": 0.034, "score": 0.7},
        {"event": "chosen", "cut": [4, 5], "reward": 0.7},
    ]


def record(**changes: Any) -> dict[str, Any]:
    """As in ``pruning.json``."""
    base = {
        "cut": [{"index": g, "layer": "conv2", "kind": "channel", "channels": 1} for g in sorted(CUT)],
        "groups_cut": 2,
        "groups_total": 6,
        "reward": 0.7,
        "probe_success_left": [0.1, 0.9, 0.5, 0.95],
        "accuracy_drop": 0.021,
        "rules": [],
        "explanation": explanation(),
        "seconds": 1.0,
        "passes": 10.0,
        "content_hash": "sha256:" + "b" * 64,
    }
    return {**base, **changes}
