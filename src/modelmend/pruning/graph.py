"""The neuron graph: every prunable group is a node, resemblance and flow are edges, the whole network one graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from modelmend.pruning import attributes, experience
from modelmend.pruning.connections import Connections
from modelmend.records import Record

if TYPE_CHECKING:
    from torch_geometric.data import Data

SIMILAR, FLOW = 0, 1
EDGE_TYPES = ("similar", "flow")
EDGE_FEATURES = len(EDGE_TYPES) + 1
"""One-hot type, then strength in 0..1."""
NODE_ATTRIBUTES = (*attributes.NAMES, *experience.NAMES)
"""Columns of ``x``: measured on the network, then found out by the search."""


class GraphConfig(Record):
    """Thresholds of the graph. The paper names two thresholds and leaves their values open; the values are ours."""

    similarity: float = 0.8
    """A pair of a layer is linked when its cosine is in the layer's upper ``1 - similarity`` share of pairs ..."""
    dormant: float = 0.3
    """... and neither filter is dormant: its vector shorter than this share of the layer's mean length."""
    neighbours: int = 6
    """At most so many links of one type begin at a node, the strongest."""
    flow: bool = True
    """Links between layers; without them the graph falls apart into one graph a layer, as in the paper."""


def build_graph(x: Tensor, prior: Tensor, wiring: Connections, config: GraphConfig | None = None) -> Data:
    """Assemble the graph.

    Args:
        x: Node attributes ``(G, F)``, as measured.
        prior: Minus the log rank of each group under the best rule, ``(G,)``.
        wiring: Connections of the groups.
        config: Thresholds.

    Returns:
        Homogeneous ``Data`` with ``x`` ``(G, F + 3)``, the last columns zero until a search has found something out
        (``experience``), ``prior``, ``layer``, ``edge_index`` ``(2, E)``, ``edge_type`` ``(E,)`` and ``edge_attr`` ``(E, 3)``.
        Edges run both ways, the strength as seen from the target.
    """
    from torch_geometric.data import Data

    config = config or GraphConfig()
    pieces = [_similar(wiring, config)]
    if config.flow:
        pieces.append(_flow(wiring.flow, config.neighbours))
    edge_index = torch.cat([p[0] for p in pieces], 1)
    strength = torch.cat([p[1] for p in pieces])
    kind = torch.cat([torch.full((p[0].shape[1],), i) for i, p in enumerate(pieces)])
    edge_attr = torch.cat([functional.one_hot(kind, len(EDGE_TYPES)).float(), strength[:, None]], 1)
    x = torch.cat([x, x.new_zeros(len(x), len(experience.NAMES))], 1)
    return Data(x=x, prior=prior, layer=wiring.layer, edge_index=edge_index, edge_type=kind, edge_attr=edge_attr)


def rank_prior(score: Tensor) -> Tensor:
    """Minus the log rank ``(G,)``; the highest score has rank 1 and prior 0."""
    order = score.argsort(descending=True, stable=True)
    prior = torch.empty_like(score, dtype=torch.float32)
    prior[order] = -torch.arange(1, len(score) + 1, dtype=torch.float32).log()
    return prior


def _similar(wiring: Connections, config: GraphConfig) -> tuple[Tensor, Tensor]:
    """Edges between filters of a layer whose connection-strength vectors point the same way."""
    index, strength = [torch.empty(2, 0, dtype=torch.long)], [torch.empty(0)]
    for number, vectors in enumerate(wiring.vectors):
        members = (wiring.layer == number).nonzero().flatten()
        if len(members) < 3:
            continue
        length = vectors.norm(dim=1)
        awake = length >= config.dormant * length.mean()
        unit = functional.normalize(vectors, dim=1)
        cosine = unit @ unit.T
        upper = cosine[torch.triu(torch.ones_like(cosine, dtype=torch.bool), 1)]
        threshold = upper.quantile(config.similarity)
        spread = (upper.amax() - threshold).clamp_min(1e-6)
        linked = (cosine >= threshold) & awake[:, None] & awake[None, :]
        linked.fill_diagonal_(False)
        linked = _strongest(torch.where(linked, cosine, torch.zeros_like(cosine)), config.neighbours)
        a, b = (linked | linked.T).nonzero().T
        index.append(torch.stack([members[a], members[b]]))
        strength.append(0.2 + 0.8 * ((cosine[a, b] - threshold) / spread).clamp(0, 1))
    return torch.cat(index, 1), torch.cat(strength)


def _flow(flow: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    """The strongest connections into and out of every group; strength relative to the target's strongest."""
    into = _strongest(flow.T, neighbours).T
    out = _strongest(flow, neighbours)
    a, b = ((into | out) & (flow > 0)).nonzero().T
    down = flow[a, b] / flow.amax(0).clamp_min(1e-12)[b]
    up = flow[a, b] / flow.amax(1).clamp_min(1e-12)[a]
    return torch.cat([torch.stack([a, b]), torch.stack([b, a])], 1), torch.cat([down, up])


def _strongest(matrix: Tensor, count: int) -> Tensor:
    """The ``count`` largest positive entries of each row, bool like ``matrix``."""
    top = matrix.topk(min(count, matrix.shape[1]), 1).indices
    chosen = torch.zeros_like(matrix, dtype=torch.bool).scatter_(1, top, True)
    return chosen & (matrix > 0)
