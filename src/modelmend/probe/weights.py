"""How much each candidate trigger counts: by the evidence that it is the attacker's and not one that every network has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

LEAST_LEAD = 0.1
"""Lead of a family that sees nothing special in the class."""


class Candidate(Protocol):
    """A trigger, or one at another strength."""

    @property
    def family(self) -> str:
        """Name under which its success is counted."""

    @property
    def target(self) -> int | None:
        """Class that it leads to."""

    @property
    def lead(self) -> float | None:
        """How far its class is ahead in its family."""

    def __call__(self, x: Tensor) -> Tensor:
        """Triggered samples."""


def trigger_weights(triggers: Sequence[Candidate], x: Tensor) -> tuple[float, ...]:
    """Weight of each trigger, summing to one: that of its pair of family and class, shared within the pair.

    Args:
        triggers: First generation first; its sizes and leads decide.
        x: Samples on which sizes are compared.
    """
    own = [pair_of(t) for t in triggers]
    pairs, times = sorted(set(own)), Counter(own)
    if not pairs:
        return ()
    weight = dict(zip(pairs, pair_weights(triggers, pairs, x).tolist(), strict=True))
    return tuple(weight[pair] / times[pair] for pair in own)


def pair_of(trigger: Candidate) -> tuple[str, int]:
    """Family and class; -1 without a class."""
    return trigger.family, -1 if trigger.target is None else trigger.target


def counted_lead(trigger: Candidate) -> float:
    """What the lead of a trigger's class counts for: at least ``LEAST_LEAD``, 1 where it is not known."""
    return 1.0 if trigger.lead is None else max(trigger.lead, LEAST_LEAD)


@torch.no_grad()
def pair_weights(triggers: Sequence[Candidate], pairs: Sequence[tuple[str, int]], x: Tensor) -> Tensor:
    """Weight of each pair ``(P,)``, summing to one (ours).

    ``w ~ lead n_t^2 c^-4 / (sum of c^-4 over the family)``: c is the size of the pair's first trigger, n_t the number
    of families that found a trigger to its class. A class that one family alone suspects is rarely the attacker's. The lead
    is as ``counted_lead`` has it.

    Args:
        triggers: First generation first.
        pairs: Family and class of each pair.
        x: Samples on which sizes are compared.
    """
    first: dict[tuple[str, int], float] = {}
    lead: dict[tuple[str, int], float] = {}
    for t in triggers:
        pair = pair_of(t)
        if pair not in first:
            first[pair] = max(float((t(x) - x).square().mean()) ** 2, 1e-20)
            lead[pair] = counted_lead(t)
    weight = torch.tensor([1 / first[p] for p in pairs])
    families = [p[0] for p in pairs]
    for family in set(families):
        mine = torch.tensor([f == family for f in families])
        weight[mine] /= weight[mine].sum()
    support = torch.tensor([sum(other == target for _, other in pairs) for _, target in pairs]).square()
    weight *= support * torch.tensor([lead[p] for p in pairs])
    return weight / weight.sum()
