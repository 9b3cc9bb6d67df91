"""Fresh triggers for a pruned network: held to the size of those found first, or compared with them in size.

A family that looks for the *smallest* trigger always finds some: on a repaired network it is merely larger. What
counts is whether an equally small one still works. So a fresh trigger is faded until it changes the samples no more
than the first generation of its family did: ``x' = x + min(1, c0 / c) (t(x) - x)``, with ``c`` the root mean square
change (ours).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Union

import torch
from torch import Tensor

from modelmend.probe.weights import counted_lead
from modelmend.pruning.judge import EXAGGERATED

if TYPE_CHECKING:
    from modelmend.model.classifier import Classifier
    from modelmend.probe.trigger import Trigger

Reprobe = Callable[["Classifier", int], Sequence["Trigger"]]
"""``reprobe(pruned, seed)``: triggers found from scratch on a pruned network, by the reward's families only."""


@dataclass(frozen=True)
class Scaled:
    """A trigger at a multiple of its strength; callable like the trigger.

    Attributes:
        trigger: The trigger.
        factor: Below 1 it is faded, above 1 exaggerated; the result stays in the range of the samples.
        family: Name under which its success is counted.
    """

    trigger: Trigger
    factor: float
    family: str

    @property
    def target(self) -> int | None:
        """Class that it leads to."""
        return self.trigger.target

    @property
    def lead(self) -> float | None:
        """How far its class is ahead."""
        return self.trigger.lead

    def __call__(self, x: Tensor) -> Tensor:
        """Samples moved ``factor`` times as far as the trigger moves them."""
        changed = x + self.factor * (self.trigger(x) - x)
        low = self.trigger.parts.get("low", torch.zeros(()))
        high = self.trigger.parts.get("high", torch.ones(()))
        return torch.minimum(torch.maximum(changed, low.to(x.device)), high.to(x.device))


Candidate = Union["Trigger", Scaled]


def exaggerated(triggers: Sequence[Candidate], factor: float) -> list[Scaled]:
    """The same triggers ``factor`` times as strong, counted as families of their own (``patch x1.5``).

    The probe looks for the smallest trigger that works; the attacker's own is often several times larger and can still
    work where that one fails. A mask has to beat both.
    """
    made = []
    for t in triggers:
        inner, own = (t.trigger, t.factor) if isinstance(t, Scaled) else (t, 1.0)
        made.append(Scaled(inner, own * factor, f"{t.family}{EXAGGERATED}{factor:g}"))
    return made


@torch.no_grad()
def change(trigger: Candidate, x: Tensor) -> float:
    """Root mean square change that a trigger makes to samples."""
    return float((trigger(x) - x).square().mean().sqrt())


def held_to_size(fresh: Sequence[Trigger], first: Sequence[Trigger], x: Tensor) -> list[Candidate]:
    """Fade fresh triggers to the size that the first generation of their family and class had.

    Args:
        fresh: Triggers found on a pruned network.
        first: Triggers found on the suspect.
        x: Samples on which sizes are compared.

    Returns:
        Those whose family and class have a first generation, in order, with its lead.
    """
    sizes: dict[tuple[str, int | None], float] = {}
    leads: dict[tuple[str, int | None], float | None] = {}
    for trigger in first:
        pair = trigger.family, trigger.target
        sizes[pair] = max(sizes.get(pair, 0.0), change(trigger, x))
        leads[pair] = trigger.lead
    held: list[Candidate] = []
    for trigger in fresh:
        if (trigger.family, trigger.target) not in sizes:
            continue
        largest = sizes[trigger.family, trigger.target]
        size = change(trigger, x)
        trigger = replace(trigger, lead=leads[trigger.family, trigger.target])  # noqa: PLW2901
        held.append(trigger if size <= largest else Scaled(trigger, largest / size, trigger.family))
    return held


def growth(
    before: Sequence[Trigger], after: Sequence[Trigger], telling: Sequence[Trigger], x: Tensor
) -> dict[tuple[str, int], float]:
    """How many times larger the smallest triggers became, by family and class.

    Args:
        before: Triggers found on the suspect.
        after: Triggers found in the same way on the pruned network.
        telling: Only their families and classes are compared: where a family did not see the backdoor, nothing grows.
        x: Samples on which sizes are compared.
    """
    first = {(t.family, t.target): change(t, x) for t in before}
    told = {(t.family, t.target) for t in telling}
    return {
        (t.family, t.target): max(change(t, x), 1e-9) / max(first[t.family, t.target], 1e-9)
        for t in after
        if t.target is not None and (t.family, t.target) in told & first.keys()
    }


def class_growth(ratios: Mapping[tuple[str, int], float], telling: Sequence[Trigger] = ()) -> float:
    """The largest geometric mean over the families of one class; 0 when nothing was compared.

    Args:
        ratios: From ``growth``.
        telling: Triggers whose leads weigh the families, as they do in the reward; without any, all weigh the same.
    """
    lead = {(t.family, t.target): counted_lead(t) for t in telling}
    logs: dict[int, list[tuple[float, float]]] = {}
    for (family, target), ratio in ratios.items():
        logs.setdefault(target, []).append((lead.get((family, target), 1.0), math.log(ratio)))
    means = (sum(w * log for w, log in rows) / sum(w for w, _ in rows) for rows in logs.values())
    return max((math.exp(mean) for mean in means), default=0.0)
