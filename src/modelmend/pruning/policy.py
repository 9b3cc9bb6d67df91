"""The agent's network: a graph neural network reads the neuron graph once, light heads judge each state of a search.

The encoder (messages along similarity and flow edges) reads the network under repair and what earlier searches have
found out about its groups, not what this one has cut so far; it runs once a gradient step. What a search has done
enters the heads: a flag per group, how much of each group's neighbourhood is gone, and the summed embedding of what was
cut. So a thousand states cost one pass over the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from modelmend.errors import InputError
from modelmend.pruning.experience import WORTH
from modelmend.records import Record

if TYPE_CHECKING:
    from torch_geometric.data import Data

CONTEXT = ("share of the longest search", "mean probe success", "worst probe success", "accuracy drop", "reward")
"""What a state tells beside its cut groups, in the order of ``State.context``."""

Encoder = Literal["gatv2", "transformer", "sage", "mlp"]


@dataclass(frozen=True)
class State:
    """Where ``B`` searches stand.

    Attributes:
        cut: Groups cut so far, bool ``(B, G)``.
        context: Figures named in ``CONTEXT``, float ``(B, 5)``.
    """

    cut: Tensor
    context: Tensor

    def __len__(self) -> int:
        return len(self.cut)

    def __getitem__(self, index: Tensor) -> State:
        return State(self.cut[index], self.context[index])

    @staticmethod
    def cat(states: list[State]) -> State:
        """Stack states along the batch."""
        return State(torch.cat([s.cut for s in states]), torch.cat([s.context for s in states]))


class PolicyConfig(Record):
    """Form of the network; stored with shipped weights."""

    encoder: Encoder = "gatv2"
    """Message passing; mlp = no graph, for the ablation."""
    hidden: int = 32
    """Width of an embedding."""
    layers: int = 2
    """Rounds of message passing."""
    heads: int = 2
    """Attention heads."""
    worth: float = 1.0
    """Weight of a group's worth so far, at the start."""
    neighbours: bool = True
    """Tell the actor which share of each group's neighbours is cut already; False with ``mlp``: no graph at all."""


class NeuronPolicy(nn.Module):
    """Actor and critic over the groups of a network.

    The logit of cutting group g in state s is ``w * prior_g + v * worth_g + head(h_g, n_g(s), c(s))``: ``prior`` is
    minus the log rank of g under the best rule, ``worth`` what the search has found out about g, ``h`` the graph
    embedding, ``n`` the share of g's neighbours already cut (one number an edge type), ``c`` the pooled state. One more
    logit, from ``c`` alone, means *stop*. The heads' last layers start at zero, so an untrained agent that knows nothing
    *is* the rule: it samples groups in proportion to ``rank^-w``.

    Args:
        features: Number of node attributes, those of ``experience`` the last.
        edge_features: Number of edge attributes; by convention a one-hot edge type, then the strength.
        config: Form.
    """

    def __init__(self, features: int, edge_features: int, config: PolicyConfig | None = None) -> None:
        super().__init__()
        self.config = config or PolicyConfig()
        h = self.config.hidden
        self.edge_types = edge_features - 1
        self.embed = nn.Sequential(nn.Linear(features, h), nn.ReLU())
        self.convs = nn.ModuleList(_convolution(self.config, h, edge_features) for _ in range(self.config.layers))
        self.norms = nn.ModuleList(nn.LayerNorm(h) for _ in range(self.config.layers))
        self.context = nn.Sequential(nn.Linear(2 * h + len(CONTEXT), h), nn.Tanh())
        self.actor = nn.Sequential(nn.Linear(2 * h + self.edge_types, h), nn.ReLU(), nn.Linear(h, 1))
        self.stop = nn.Linear(h, 1)
        self.critic = nn.Sequential(nn.Linear(h, h), nn.Tanh(), nn.Linear(h, 1))
        self.worth_weight = nn.Parameter(torch.tensor(self.config.worth))
        self.prior_weight = nn.Parameter(torch.tensor(1.5))
        with torch.no_grad():
            for last in (self.actor[2], self.stop, self.critic[2]):
                assert isinstance(last, nn.Linear)
                last.weight.zero_()
                last.bias.zero_()
            self.stop.bias.fill_(-1.5)

    def encode(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Embedding ``(G, H)`` of node attributes ``(G, F)`` and edges ``(2, E)``, ``(E, D)``."""
        h: Tensor = self.embed(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            if self.config.encoder == "mlp":
                message = conv(h)
            elif self.config.encoder == "sage":
                message = conv(h, edge_index)
            else:
                message = conv(h, edge_index, edge_attr)
            h = norm(h + torch.relu(message))
        return h

    def forward(self, graph: Data, state: State) -> tuple[Tensor, Tensor]:
        """Judge states.

        Args:
            graph: Neuron graph with ``x (G, F)``, ``edge_index (2, E)``, ``edge_attr (E, D)``, ``prior (G,)``.
            state: ``B`` states of the search.

        Returns:
            Logits ``(B, G + 1)``, the last one meaning *stop* (groups already cut are not masked out here), and the
            value ``(B,)``: the further reward expected.
        """
        return self.judge(self.encode(graph.x, graph.edge_index, graph.edge_attr), graph, state)

    def judge(self, h: Tensor, graph: Data, state: State) -> tuple[Tensor, Tensor]:
        """The same from embeddings ``h (G, H)`` that are known already."""
        cut = state.cut.to(h.dtype)
        share = cut @ h / (1 + cut.sum(1, keepdim=True)).sqrt()
        everything = h.mean(0).expand(len(cut), -1)
        c = self.context(torch.cat([share, everything, state.context], 1))
        near = _neighbours_cut(graph, cut, self.edge_types)
        if not self.config.neighbours:
            near = torch.zeros_like(near)
        nodes = torch.cat([h.expand(len(cut), -1, -1), c[:, None].expand(-1, len(h), -1), near], 2)
        logits = self.actor(nodes).squeeze(2) + self.prior_weight * graph.prior + self.worth_weight * graph.x[:, WORTH]
        return torch.cat([logits, self.stop(c)], 1), self.critic(c).squeeze(1)

    def candidate(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, prior: Tensor) -> Tensor:
        """Log-odds ``(G,)`` that each group is a first cut, against the mean group: the head that explainers read."""
        h = self.encode(x, edge_index, edge_attr)
        c = self.context(torch.cat([h.new_zeros(h.shape[1]), h.mean(0), h.new_zeros(len(CONTEXT))]))
        nodes = torch.cat([h, c.expand(len(h), -1), h.new_zeros(len(h), self.edge_types)], 1)
        logits: Tensor = self.actor(nodes).squeeze(1) + self.prior_weight * prior + self.worth_weight * x[:, WORTH]
        return logits - logits.mean()


def _convolution(config: PolicyConfig, hidden: int, edge_features: int) -> nn.Module:
    from torch_geometric.nn import GATv2Conv, SAGEConv, TransformerConv

    if hidden % config.heads:
        raise InputError("hidden must be a multiple of heads", field="hidden", fix=f"use {config.heads * 16}")
    per_head = hidden // config.heads
    if config.encoder == "gatv2":
        return GATv2Conv(hidden, per_head, heads=config.heads, edge_dim=edge_features)  # type: ignore[no-any-return]
    if config.encoder == "transformer":
        return TransformerConv(hidden, per_head, heads=config.heads, edge_dim=edge_features)  # type: ignore[no-any-return]
    if config.encoder == "sage":
        return SAGEConv(hidden, hidden)  # type: ignore[no-any-return]
    if config.encoder == "mlp":
        return nn.Linear(hidden, hidden)
    raise InputError(f"unknown encoder {config.encoder!r}", field="encoder", fix="gatv2, transformer, sage or mlp")


def _neighbours_cut(graph: Data, cut: Tensor, edge_types: int) -> Tensor:
    """Strength-weighted share ``(B, G, types)`` of each group's neighbours that state ``(B, G)`` has cut."""
    source, target = graph.edge_index
    shares = []
    for kind in range(edge_types):
        weight = graph.edge_attr[:, kind] * graph.edge_attr[:, -1]
        total = cut.new_zeros(cut.shape[1]).index_add_(0, target, weight).clamp_min(1e-6)
        gone = torch.zeros_like(cut).index_add_(1, target, cut[:, source] * weight)
        shares.append(gone / total)
    return torch.stack(shares, 2)
