"""Evidence for every cut that a person can check, the agent's path, and how much of the removal the evidence covers.

Explainability score = harmonic mean of (a) PyG's characterization score of the agent's answers and (b) the share of
the fall in probe success that the *listed* groups, cut alone, account for. Its interval resamples cuts for (a) and
triggered samples for (b). Beside it stands the score when as many random groups are listed in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelmend.pruning.attributes import NAMES, Attributes
from modelmend.pruning.environment import Archive, Candidate, CutEnvironment
from modelmend.pruning.explainer import GroupExplanation, characterization, explain_group
from modelmend.pruning.graph import EDGE_TYPES
from modelmend.pruning.judge import MaskJudge
from modelmend.pruning.policy import NeuronPolicy
from modelmend.pruning.ppo import masked_log_probs

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from modelmend.model.groups import Group

LISTED = 5
"""Cards that a reader is shown first: the cuts with the largest effect on their own."""
RANDOM_SETS = 5
DRAWS = 200
STORED_EDGES = 500
"""Edges that ``stored_graph`` keeps; a wide network has tens of thousands."""


@dataclass(frozen=True)
class Evidence:
    """All that an explanation draws on: the last round of the search and its result."""

    groups: Sequence[Group]
    attributes: Attributes
    graph: Data
    policy: NeuronPolicy
    judge: MaskJudge
    archive: Archive
    chosen: Candidate
    limit: int


def explain(evidence: Evidence, *, seed: int) -> dict[str, Any]:
    """Explain the chosen cuts; JSON without NaN.

    Args:
        evidence: Of the search.
        seed: Of resampling and of the random sets.

    Returns:
        ``cards`` (one a cut, largest effect first), ``path``, ``probe`` (a row a trigger family and class),
        ``score`` with ``low``, ``high``, ``random``, ``characterization`` and ``share``; without cuts the lists are
        empty and the score is ``None``.
    """
    cut = evidence.chosen.cut
    if not cut:
        return {"cards": [], "path": [], "score": None, "listed": []}
    alone = leave_one_out(evidence)
    order = sorted(cut, key=lambda g: -alone[g]["success_without_it"])
    reasons = {g: explain_group(evidence.policy, evidence.graph, g) for g in cut}
    path = agent_path(evidence)
    listed = tuple(order[:LISTED])
    score = explainability(evidence, listed, list(reasons.values()), seed)
    cards = [_card(evidence, g, alone[g], reasons[g], path) for g in order]
    return {"cards": cards, "path": path, "probe": probe_rows(evidence), "listed": list(listed), **score}


def probe_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Success of each trigger family and class before and after the chosen cuts, and its weight in every mean here."""
    judge = evidence.judge
    figures = zip(judge.pairs, judge.weight.tolist(), judge.before.tolist(), evidence.chosen.success, strict=True)
    return [
        {"family": family, "target": target, "weight": weight, "before": before, "after": after}
        for (family, target), weight, before, after in figures
    ]


def stored_graph(evidence: Evidence) -> dict[str, Any]:
    """The neuron graph as plain JSON, for a picture that is drawn later (``picture.draw``).

    Returns:
        ``layers`` (names in the order of the network), ``nodes`` (a row a group: ``layer`` as a position in ``layers``,
        ``depth`` 0..1, ``contrast``: its probe contrast in deviations of its layer) and ``edges`` (``from``, ``to``,
        ``type``, ``strength`` 0..1). Of the edges at most ``STORED_EDGES`` are kept, those at a cut group first, then
        the strongest, each pair and type once; ``edges_total`` says how many such pairs there are.
    """
    graph, cut = evidence.graph, set(evidence.chosen.cut)
    contrast = evidence.attributes.x[:, NAMES.index("probe contrast")].tolist()
    depth = evidence.attributes.column("depth").tolist()
    strongest: dict[tuple[int, int, int], float] = {}
    rows = zip(*graph.edge_index.tolist(), graph.edge_type.tolist(), graph.edge_attr[:, -1].tolist(), strict=True)
    for a, b, kind, strength in rows:
        pair = min(a, b), max(a, b), kind
        strongest[pair] = max(strongest.get(pair, 0.0), strength)
    order = sorted(strongest, key=lambda e: (-((e[0] in cut) + (e[1] in cut)), -strongest[e], e))
    return {
        "layers": list(dict.fromkeys(g.layer for g in evidence.groups)),
        "nodes": [
            {"layer": layer, "depth": round(depth[i], 4), "contrast": round(contrast[i], 4)}
            for i, layer in enumerate(graph.layer.tolist())
        ],
        "edges": [
            {"from": a, "to": b, "type": EDGE_TYPES[kind], "strength": round(strongest[a, b, kind], 4)}
            for a, b, kind in order[:STORED_EDGES]
        ],
        "edges_total": len(strongest),
    }


def leave_one_out(evidence: Evidence) -> dict[int, dict[str, float]]:
    """What comes back when one cut is undone: mean probe success and accuracy drop, changes against the chosen mask."""
    cut = evidence.chosen.cut
    rows = torch.zeros(len(cut) + 1, len(evidence.groups), dtype=torch.bool)
    rows[:, list(cut)] = True
    rows[torch.arange(len(cut)), torch.tensor(cut)] = False
    outcome = evidence.archive.judge(rows)
    success = outcome.success @ evidence.judge.weight
    return {
        g: {
            "success_without_it": float(success[i] - success[-1]),
            "accuracy_without_it": float(outcome.drop[-1] - outcome.drop[i]),
            "reward_without_it": float(outcome.reward[i] - outcome.reward[-1]),
        }
        for i, g in enumerate(cut)
    }


@torch.no_grad()
def agent_path(evidence: Evidence) -> list[dict[str, Any]]:
    """The agent's own way to the chosen set: at each state it takes the group of the set that it likes best.

    One row a step: the group, its probability and rank among all actions, and what the network did after the cut;
    ``success`` is the mean over triggers by their weight in the reward.
    """
    env = CutEnvironment(evidence.graph, evidence.archive, limit=evidence.limit, hopeless=2.0)
    state = env.reset(1)
    left = set(evidence.chosen.cut)
    path: list[dict[str, Any]] = []
    while left:
        logits, _ = evidence.policy(evidence.graph, state)
        log_probs = masked_log_probs(logits, env.legal())[0]
        inside = sorted(left)
        group = inside[int(log_probs[inside].argmax())]
        rank = int((log_probs > log_probs[group]).sum()) + 1
        probability = float(log_probs[group].exp())
        state, _, _ = env.step(torch.tensor([group]))
        env.done[:] = False
        success = float(evidence.archive.judge(env.cut).success[0] @ evidence.judge.weight)
        *_, drop, reward = state.context[0].tolist()
        path.append(
            {
                "step": len(path) + 1,
                "group": group,
                "probability": probability,
                "rank": rank,
                "success": success,
                "drop": drop / 10,
                "reward": reward,
                "value_of_stopping": float(log_probs[-1].exp()),
            }
        )
        left.remove(group)
    return path


def explainability(
    evidence: Evidence, listed: Sequence[int], reasons: Sequence[GroupExplanation], seed: int
) -> dict[str, Any]:
    """Score, its parts, its interval, and the score of a random listing."""
    generator = torch.Generator().manual_seed(seed)
    count = len(evidence.groups)
    others = torch.tensor([g for g in range(count) if g not in set(listed)])
    random_sets = [
        others[torch.randperm(len(others), generator=generator)[: len(listed)]].tolist() for _ in range(RANDOM_SETS)
    ]
    sets = [list(evidence.chosen.cut), list(listed), *random_sets]
    masks = torch.ones(len(sets), count, dtype=torch.bool)
    for row, chosen in enumerate(sets):
        masks[row, chosen] = False
    judge = evidence.judge
    hits, chance = judge.rows(torch.cat([masks, torch.ones(1, count, dtype=torch.bool)]))
    share, random = _shares(judge.success(hits, chance) @ judge.weight)
    fidelity = characterization(reasons)
    score = _harmonic(fidelity, share)
    draws = []
    for _ in range(DRAWS):
        rows = torch.randint(judge.samples, (judge.samples,), generator=generator)
        drawn = judge.resampled(hits[:, rows], chance[:, rows], rows)
        some = torch.randint(len(reasons), (len(reasons),), generator=generator).tolist()
        draws.append(_harmonic(characterization([reasons[i] for i in some]), _shares(drawn @ judge.weight)[0]))
    low, high = torch.tensor(draws).quantile(torch.tensor([0.025, 0.975])).tolist()
    return {
        "score": score,
        "low": low,
        "high": high,
        "random": _harmonic(fidelity, random),
        "characterization": fidelity,
        "fidelity_plus": sum(r.fid_plus for r in reasons) / len(reasons),
        "fidelity_minus": sum(r.fid_minus for r in reasons) / len(reasons),
        "share": share,
        "random_share": random,
    }


def _shares(success: Tensor) -> tuple[float, float]:
    """Share of the whole fall that the listed set and that random sets give; rows: all, listed, random sets, uncut."""
    fall = success[-1] - success[:-1]
    whole = fall[0].clamp_min(1e-6)
    share = (fall[1:] / whole).clamp(0, 1)
    return float(share[0]), float(share[1:].mean())


def _harmonic(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a > 0 and b > 0 else 0.0


def _card(
    evidence: Evidence, group: int, alone: dict[str, float], reason: GroupExplanation, path: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """One group's evidence."""
    g, a, graph = evidence.groups[group], evidence.attributes, evidence.graph
    mine = graph.layer == graph.layer[group]
    attributes = []
    for column in a.x[group].abs().argsort(descending=True)[:6].tolist():
        raw = a.raw[mine, column]
        attributes.append(
            {
                "name": NAMES[column],
                "value": float(a.raw[group, column]),
                "deviations": float(a.x[group, column]),
                "layer_mean": float(raw.mean()),
                "percentile": float((raw <= a.raw[group, column]).float().mean()),
            }
        )
    return {
        "group": group,
        "layer": g.layer,
        "kind": g.kind,
        "channels": list(g.sites[0].channels),
        "step": next(row["step"] for row in path if row["group"] == group),
        "leave_one_out": alone,
        "attributes": attributes,
        "because": [{"name": name, "share": share} for name, share in reason.own if share > 0],
        "because_of_groups": [{"group": other, "share": share} for other, share in reason.others],
        "because_of_edges": [{"from": s, "to": t, "share": share} for s, t, share in reason.edges],
        "fidelity_plus": reason.fid_plus,
        "fidelity_minus": reason.fid_minus,
        "neighbours": _neighbours(evidence, group),
        "top_clean": _top(a.clean[:, group]),
        "top_triggered": [_top(t[:, group]) for t in a.triggered],
    }


def _neighbours(evidence: Evidence, group: int) -> list[dict[str, Any]]:
    """The strongest edges into a group; ``cut`` tells whether the other end was cut as well."""
    graph, cut = evidence.graph, set(evidence.chosen.cut)
    edges = (graph.edge_index[1] == group).nonzero().flatten()
    best = edges[graph.edge_attr[edges, -1].argsort(descending=True, stable=True)[:6]].tolist()
    return [
        {
            "group": int(graph.edge_index[0, e]),
            "type": EDGE_TYPES[int(graph.edge_type[e])],
            "strength": float(graph.edge_attr[e, -1]),
            "cut": int(graph.edge_index[0, e]) in cut,
        }
        for e in best
    ]


def _top(activation: Tensor, count: int = 3) -> list[dict[str, Any]]:
    """The samples of the fit split that excite a group most: position in the split, activation."""
    best = activation.topk(min(count, len(activation)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [{"sample": int(i), "activation": float(v)} for i, v in pairs]
