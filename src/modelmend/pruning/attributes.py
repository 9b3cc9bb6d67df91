"""What the agent sees of each group: two dozen figures, comparable between networks.

Every column but the depth is standardised over the groups of the same layer (mean 0, deviation 1, at most 4 away), so
that a policy learned on one network reads the attributes of another of different width, depth and scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelmend.metrics import count_passes
from modelmend.model.masks import Masked
from modelmend.pruning.connections import Connections
from modelmend.pruning.forward import MaskedForward

if TYPE_CHECKING:
    from modelmend.model.classifier import Classifier
    from modelmend.model.groups import Group
    from modelmend.probe.trigger import Trigger
    from modelmend.pruning.judge import Labelled
    from modelmend.pruning.refresh import Scaled

NAMES = (
    "activation mean",
    "activation spread",
    "sparsity",
    "peak over mean",
    "class selectivity",
    "response to the suspect class",
    "weights in",
    "weights out",
    "scale",
    "shift",
    "running mean",
    "running deviation",
    "lipschitz bound",
    "probe contrast",
    "strongest probe contrast",
    "probe contrast in spreads",
    "agreement of probes",
    "trigger gradient",
    "clean gradient",
    "depth",
    "layer width",
)
"""Columns of the node attributes."""


@dataclass(frozen=True)
class Attributes:
    """Attributes of ``G`` groups.

    Attributes:
        raw: As measured, ``(G, F)``, columns as in ``NAMES``.
        x: Standardised per layer, ``(G, F)``; what the policy reads.
        clean: Mean activation of each clean sample, ``(N, G)``.
        triggered: The same with each trigger applied, ``(T, N, G)``.
    """

    raw: Tensor
    x: Tensor
    clean: Tensor
    triggered: Tensor

    def column(self, name: str) -> Tensor:
        """One raw column ``(G,)``."""
        return self.raw[:, NAMES.index(name)]


def measure(
    classifier: Classifier,
    groups: Sequence[Group],
    wiring: Connections,
    fit: Labelled,
    triggers: Sequence[Trigger | Scaled],
) -> Attributes:
    """Run clean and probe-triggered samples once and collect the attributes.

    Args:
        classifier: The suspect.
        groups: Its prunable groups.
        wiring: Their connections.
        fit: Samples that the triggers were fitted to.
        triggers: Candidate triggers; without any, contrasts are 0.
    """
    x, y = fit
    clean_mean, clean_peak, zero, clean_gradient = _respond(classifier, groups, x, y, None)
    runs = []
    for trigger in triggers:
        with torch.no_grad():
            changed = trigger(x)
        wanted = y if trigger.target is None else torch.full_like(y, trigger.target)
        runs.append(_respond(classifier, groups, changed, wanted, trigger.target))
    count = len(groups)
    triggered = torch.stack([r[0] for r in runs]) if runs else torch.zeros(0, len(x), count)
    trigger_gradient = torch.stack([r[3] for r in runs]).mean(0) if runs else torch.zeros(count)
    contrast = (triggered - clean_mean).mean(1)
    spread = clean_mean.std(0)
    per_class = torch.stack([clean_mean[y == c].mean(0) for c in torch.unique(y)])
    suspects = sorted({t.target for t in triggers if t.target is not None})
    suspect = clean_mean[torch.isin(y, torch.tensor(suspects))] if suspects else clean_mean[:0]
    response = suspect.mean(0) - clean_mean.mean(0) if len(suspect) else torch.zeros(count)
    if len(contrast):
        mean, strongest = contrast.mean(0), contrast.amax(0)
        agreement = (contrast > 0).float().mean(0)
    else:
        mean = strongest = agreement = torch.zeros(count)
    width = torch.bincount(wiring.layer)[wiring.layer]
    depth = wiring.layer / max(1, int(wiring.layer.max()) if count else 1)
    columns = [
        clean_mean.mean(0),
        spread,
        zero,
        clean_peak.mean(0) / (clean_mean.mean(0) + 1e-6),
        (per_class.amax(0) - per_class.mean(0)) / (per_class.std(0) + 1e-6),
        response,
        wiring.norm_in,
        wiring.norm_out,
        *wiring.norms.T,
        wiring.lipschitz,
        mean,
        strongest,
        mean / (spread + 1e-3 * (1 + spread.mean())),
        agreement,
        trigger_gradient,
        clean_gradient,
        depth,
        width.float().log(),
    ]
    raw = torch.stack([c.float().cpu() for c in columns], 1).nan_to_num()
    return Attributes(raw, standardise(raw, wiring.layer), clean_mean, triggered)


def standardise(raw: Tensor, layer: Tensor) -> Tensor:
    """Mean 0 and deviation 1 over each layer's groups, clipped to -4..4; depth and width (the last two) over none."""
    x = raw.clone()
    for number in torch.unique(layer):
        mine = layer == number
        block = raw[mine]
        deviation = block.std(0, correction=0)
        scale = torch.where(deviation > 1e-8, deviation, torch.ones_like(deviation))
        x[mine] = ((block - block.mean(0)) / scale).clamp(-4, 4)
    x[:, -2] = 2 * raw[:, -2] - 1
    x[:, -1] = raw[:, -1] / 4 - 1
    return x


def _respond(
    classifier: Classifier, groups: Sequence[Group], x: Tensor, y: Tensor, target: int | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and peak activation ``(N, G)``, share of zeros ``(G,)``, and the gradient that each group carries ``(G,)``.

    The gradient is that of the mean log-odds of class ``y`` with respect to a factor on the group: to first order, how
    much cutting the group lowers them.
    """
    forward, masked = MaskedForward(classifier, groups, x), Masked(classifier.graph, groups)
    count = len(groups)
    means, peaks, zeros = [], [], []
    gradient = torch.zeros(count)
    start = 0
    for i, part in enumerate(forward.chunks):
        mean, peak, zero = _summaries(forward, i, count)
        means.append(mean)
        peaks.append(peak)
        zeros.append(zero * len(part))
        weight = torch.ones(count, requires_grad=True)
        logits = classifier.logits(masked(part, weight))
        count_passes(len(part), backward=True)
        label = y[start : start + len(part)].to(logits.device)
        own = logits.gather(1, label[:, None]).squeeze(1)
        others = logits.scatter(1, label[:, None], -torch.inf).logsumexp(1)
        (grad,) = torch.autograd.grad((own - others).sum(), weight)
        gradient += grad.cpu()
        start += len(part)
    n = max(1, len(x))
    return torch.cat(means), torch.cat(peaks), torch.stack(zeros).sum(0) / n, gradient / n


def _summaries(forward: MaskedForward, chunk: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of the uncut network, averaged over each group's channels and stops: mean, peak, share of zeros."""
    n = len(forward.chunks[chunk])
    total, peak, zero, seen = (torch.zeros(n, count) for _ in range(4))
    for segment, value in forward.stop_values(chunk):
        v = (
            value.detach().movedim(segment.dim, 1).float().flatten(2)
            if value.dim() > 2
            else value.detach().float()[..., None]
        )
        owner = segment.channel_group
        mine = owner >= 0
        at = owner[mine]
        v = v[:, mine].cpu()
        total.index_add_(1, at, v.mean(2))
        peak.index_add_(1, at, v.amax(2))
        zero.index_add_(1, at, (v.abs() < 1e-6).float().mean(2))
        seen.index_add_(1, at, torch.ones(n, len(at)))
    seen = seen.clamp_min(1)
    return total / seen, peak / seen, (zero / seen).mean(0)
