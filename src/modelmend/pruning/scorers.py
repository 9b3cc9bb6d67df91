"""Rule-based pruning: one score a group, cut the highest ones. Baselines, and the agent's prior.

A new rule is one function with ``@scorer``; every rule sees the same context, so a comparison is fair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from modelmend.pruning.attributes import Attributes
from modelmend.pruning.connections import Connections
from modelmend.pruning.environment import Archive


@dataclass(frozen=True)
class Context:
    """All that a rule may look at: nothing of it comes from the attacker."""

    attributes: Attributes
    wiring: Connections


Scorer = Callable[[Context], Tensor]
"""``scorer(context) -> (G,)``; the group of the highest score is cut first."""

SCORERS: dict[str, Scorer] = {}


def scorer(name: str) -> Callable[[Scorer], Scorer]:
    """Register a rule under a name."""

    def register(rule: Scorer) -> Scorer:
        SCORERS[name] = rule
        return rule

    return register


def within_layer(values: Tensor, layer: Tensor) -> Tensor:
    """Standardised over each layer: ``(v - mean) / deviation``."""
    out = torch.zeros_like(values)
    for number in torch.unique(layer):
        mine = layer == number
        v = values[mine]
        out[mine] = (v - v.mean()) / v.std(correction=0).clamp_min(1e-8)
    return out


@scorer("fine-pruning")
def fine_pruning(context: Context) -> Tensor:
    """Dormant on clean samples: minus the mean activation (Liu et al., RAID 2018), deepest layer first."""
    quiet = -within_layer(context.attributes.column("activation mean"), context.wiring.layer)
    return quiet + 10.0 * (context.wiring.layer == context.wiring.layer.max())


@scorer("clp")
def channel_lipschitzness(context: Context) -> Tensor:
    """Channel Lipschitz bound, in deviations above its layer's mean (CLP, Zheng et al., ECCV 2022); needs no data."""
    return within_layer(context.wiring.lipschitz, context.wiring.layer)


@scorer("probe contrast")
def probe_contrast(context: Context) -> Tensor:
    """How much the group's activation rises under probe triggers, in deviations over its layer."""
    return within_layer(context.attributes.column("probe contrast"), context.wiring.layer)


@scorer("trigger gradient")
def trigger_gradient(context: Context) -> Tensor:
    """To first order, what cutting the group takes from the triggers less what it takes from clean samples (ours)."""
    trigger, clean = (context.attributes.column(f"{kind} gradient") for kind in ("trigger", "clean"))
    return trigger / trigger.std().clamp_min(1e-8) - clean.clamp_min(0) / clean.std().clamp_min(1e-8)


@scorer("combined")
def combined(context: Context) -> Tensor:
    """Sum of the standardised ranks of contrast, Lipschitz bound and trigger gradient (ours)."""
    parts = [probe_contrast(context), channel_lipschitzness(context), trigger_gradient(context)]
    return torch.stack([p.argsort().argsort().float() / len(p) for p in parts]).sum(0)


@dataclass(frozen=True)
class RuleResult:
    """How a rule does at its best threshold."""

    name: str
    score: Tensor
    reward: float
    cut: tuple[int, ...]


def prefixes(score: Tensor, layer: Tensor, limit: int, layer_share: float = 0.5) -> Tensor:
    """The rule's masks: the 1, 2, ... ``limit`` highest scores, bool ``(limit, G)``; no layer loses over its share."""
    sizes = torch.bincount(layer)
    room = torch.minimum((sizes * layer_share).floor().clamp_min(1), sizes - 1).clamp_min(0)
    rows: list[Tensor] = []
    cut = torch.zeros(len(score), dtype=torch.bool)
    for group in score.argsort(descending=True, stable=True).tolist():
        if len(rows) == limit:
            break
        if room[layer[group]] > 0:
            room[layer[group]] -= 1
            cut = cut.clone()
            cut[group] = True
            rows.append(cut)
    return torch.stack(rows) if rows else torch.zeros(0, len(score), dtype=torch.bool)


def try_rules(context: Context, archive: Archive, limit: int, names: tuple[str, ...] | None = None) -> list[RuleResult]:
    """Judge every rule at every threshold up to ``limit`` cuts; best rule first.

    The best rule is chosen on the same samples as the agent's reward, which favours the rules: they are a baseline.
    """
    results = []
    for name in names or tuple(SCORERS):
        score = SCORERS[name](context)
        masks = prefixes(score, context.wiring.layer, limit)
        outcome = archive.judge(masks)
        rewards = outcome.reward.masked_fill(~outcome.whole, -torch.inf)
        best = int(rewards.argmax()) if len(rewards) else -1
        reward, cut = 0.0, torch.zeros(len(score), dtype=torch.bool)
        if best >= 0 and float(rewards[best]) > 0:
            reward, cut = float(rewards[best]), masks[best]
        results.append(RuleResult(name, score, reward, tuple(cut.nonzero().flatten().tolist())))
    return sorted(results, key=lambda r: -r.reward)
