"""A search, posed: what is fixed before an agent begins - groups, attributes, and the judge that pays for masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from modelmend.model.groups import Group
from modelmend.pruning.attributes import Attributes
from modelmend.pruning.connections import Connections
from modelmend.pruning.environment import Archive, CutEnvironment, Judge
from modelmend.pruning.graph import GraphConfig, build_graph, rank_prior
from modelmend.pruning.judge import MaskJudge
from modelmend.pruning.scorers import Context, RuleResult, try_rules


@dataclass(frozen=True)
class Problem:
    """One network and a fixed set of triggers.

    Attributes:
        groups: The network's prunable groups, ``G`` of them.
        wiring: Their connections.
        attributes: What is measured on each, ``(G, F)``.
        judge: Says what a mask is worth.
        limit: Longest search, in cuts.
        layer_share: No more than this share of a layer's groups is cut.
    """

    groups: Sequence[Group]
    wiring: Connections
    attributes: Attributes
    judge: MaskJudge
    limit: int
    layer_share: float = 0.5

    @property
    def context(self) -> Context:
        """What rules look at."""
        return Context(self.attributes, self.wiring)

    def environment(
        self,
        *,
        prior: bool = True,
        graph: GraphConfig | None = None,
        rules: tuple[str, ...] | None = None,
        judge: Judge | None = None,
    ) -> tuple[CutEnvironment, list[RuleResult]]:
        """A fresh search.

        Args:
            prior: The agent starts from the best rule and knows how the rules' masks did; False: from nothing.
            graph: Which groups are linked.
            rules: Scorers to try; ``None``: all.
            judge: Asked in place of ``self.judge``, such as one that remembers.

        Returns:
            The environment, its archive holding the rules' masks, and the rules, best first.
        """
        self.judge.forget()
        archive = Archive(judge or self.judge)
        results = try_rules(self.context, archive, self.limit, rules)
        if not prior:
            archive.meet()
        first = rank_prior(results[0].score) if prior else torch.zeros(len(self.groups))
        drawn = build_graph(self.attributes.x, first, self.wiring, graph)
        return CutEnvironment(drawn, archive, limit=self.limit, layer_share=self.layer_share), results


def longest(groups: int, most: int) -> int:
    """Longest search in a network of so many groups: ``most`` cuts, and at most a third of the groups."""
    return min(most, max(1, groups // 3))
