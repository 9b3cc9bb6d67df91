"""Which attributes and which edges make the agent want a group: PyG's explainer framework on the policy's head.

The head is read as a binary classification of one group: *cut* when its log-odds are nearer to where they are than to
those of the average group. Attribution is gradient times input (one backward pass, deterministic); the explanation
keeps only its largest parts. Fidelity asks whether these parts alone leave the answer (``fid-`` small) and whether
the answer falls without them (``fid+`` large); PyG's characterization score is the harmonic mean of ``fid+`` and ``1
- fid-``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modelmend.pruning.graph import NODE_ATTRIBUTES
from modelmend.pruning.policy import NeuronPolicy

if TYPE_CHECKING:
    from torch_geometric.data import Data

KEPT_ATTRIBUTES = 32
"""An explanation keeps so many attribute values (of all groups together) ..."""
KEPT_EDGES = 16
"""... and so many edges."""
PRIOR = "rank under the best rule"


class Head(nn.Module):
    """The policy's keep-or-cut answer for one group, as logits ``(G, 2)`` of *keep* and *cut*.

    The prior enters as one more attribute, the last, so that an explanation can name it; like the others it is centred,
    so that zero stands for the average group.

    Args:
        policy: The agent.
        group: The group in question.
        graph: Its graph; fixes the threshold halfway between this group's log-odds and the mean, which is 0.
    """

    def __init__(self, policy: NeuronPolicy, group: int, graph: Data) -> None:
        super().__init__()
        self.policy = policy
        self.mean_prior = float(graph.prior.mean())
        with torch.no_grad():
            odds = policy.candidate(graph.x, graph.edge_index, graph.edge_attr, graph.prior)
        self.threshold = float(odds[group]) / 2
        self.sign = 1.0 if odds[group] >= 0 else -1.0

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> Tensor:
        """Logits of attributes with the prior as last column ``(G, F + 1)``."""
        odds = self.policy.candidate(x[:, :-1], edge_index, edge_attr, x[:, -1] + self.mean_prior)
        answer = self.sign * (odds - self.threshold)
        return torch.stack([-answer, answer], 1)


@dataclass(frozen=True)
class GroupExplanation:
    """Why the agent wants one group.

    Attributes:
        group: Its index.
        own: Its own attributes by weight, ``(name, share of all attribution)``, largest first.
        others: Other groups whose attributes count, ``(group, share)``.
        edges: Edges that count, ``(source, target, share)``.
        fid_plus: 1 when the answer falls without the kept parts, else 0.
        fid_minus: 1 when the kept parts alone do not give the answer, else 0.
    """

    group: int
    own: list[tuple[str, float]]
    others: list[tuple[int, float]]
    edges: list[tuple[int, int, float]]
    fid_plus: float
    fid_minus: float


def explain_group(policy: NeuronPolicy, graph: Data, group: int) -> GroupExplanation:
    """Explain one group with PyG's ``Explainer`` and score it with PyG's ``fidelity``."""
    from torch_geometric.explain import Explainer, ModelConfig
    from torch_geometric.explain.metric import fidelity

    policy.eval()
    head = Head(policy, group, graph).eval()
    explainer = Explainer(
        head,
        _gradient_times_input(),
        explanation_type="model",
        model_config=ModelConfig(mode="multiclass_classification", task_level="node", return_type="raw"),
        node_mask_type="attributes",
        edge_mask_type="object",
    )
    x = torch.cat([graph.x, graph.prior[:, None] - head.mean_prior], 1)
    explanation = explainer(x, graph.edge_index, edge_attr=graph.edge_attr, index=torch.tensor([group]))
    node, edge = explanation.node_mask, explanation.edge_mask
    explanation.node_mask, explanation.edge_mask = _largest(node, KEPT_ATTRIBUTES), _largest(edge, KEPT_EDGES)
    plus, minus = fidelity(explainer, explanation)
    own = sorted(zip([*NODE_ATTRIBUTES, PRIOR], node[group].tolist(), strict=True), key=lambda pair: -pair[1])
    elsewhere = node.sum(1)
    elsewhere[group] = 0
    others = [(int(g), float(elsewhere[g])) for g in elsewhere.topk(min(5, len(elsewhere))).indices if elsewhere[g] > 0]
    best = edge.topk(min(5, len(edge))).indices.tolist() if len(edge) else []
    source, target = graph.edge_index
    edges = [(int(source[e]), int(target[e]), float(edge[e])) for e in best if edge[e] > 0]
    return GroupExplanation(group, own[:6], others, edges, plus, minus)


def _largest(mask: Tensor, count: int) -> Tensor:
    """1 at the ``count`` largest positive entries, 0 elsewhere."""
    flat = mask.flatten()
    hard = torch.zeros_like(flat)
    hard[flat.topk(min(count, len(flat))).indices] = 1
    return (hard * (flat > 0)).reshape(mask.shape)


def characterization(explanations: Sequence[GroupExplanation]) -> float:
    """PyG's characterization score of the mean fidelities, 0..1; 0 without explanations or when ``fid+`` is 0."""
    from torch_geometric.explain.metric import characterization_score

    if not explanations:
        return 0.0
    plus = torch.tensor([e.fid_plus for e in explanations]).mean()
    minus = torch.tensor([e.fid_minus for e in explanations]).mean()
    return float(characterization_score(plus, minus)) if plus > 0 and minus < 1 else 0.0


def _gradient_times_input() -> Any:
    """A PyG explainer algorithm; a class made on demand because ``torch_geometric`` is imported late."""
    from torch_geometric.explain import ExplainerAlgorithm, Explanation
    from torch_geometric.explain.algorithm.utils import clear_masks, set_masks

    class GradientTimesInput(ExplainerAlgorithm):  # type: ignore[misc]
        """``|x * d answer / d x|`` of attributes, ``|d answer / d m|`` of edge weights m = 1; each sums to 1."""

        def forward(
            self, model: nn.Module, x: Tensor, edge_index: Tensor, *, target: Tensor, index: Tensor, **kwargs: Any
        ) -> Any:
            x = x.detach().clone().requires_grad_(True)
            weight = torch.ones(edge_index.shape[1], requires_grad=True)
            set_masks(model, weight, edge_index, apply_sigmoid=False)
            try:
                answer = model(x, edge_index, **kwargs)[index, target[index]].sum()
                by_x, by_edge = torch.autograd.grad(answer, [x, weight], allow_unused=True)
            finally:
                clear_masks(model)
            node = (x * by_x).abs().detach()
            edge = torch.zeros_like(weight) if by_edge is None else by_edge.abs().detach()
            return Explanation(node_mask=_shares(node), edge_mask=_shares(edge))

        def supports(self) -> bool:
            """Node-level answers of any model."""
            return True

    return GradientTimesInput()


def _shares(values: Tensor) -> Tensor:
    total = values.sum()
    return values / total if total > 0 else values
