"""Fresh triggers for a pruned network: held to the size of those found first, or compared with them in size.

A family that looks for the *smallest* trigger always finds some: on a repaired network it is merely larger. What
counts is whether an equally small one still works. So a fresh trigger is faded until it changes the samples no more
than the first generation of its family did: ``x' = x + min(1, c0 / c) (t(x) - x)``, with ``c`` the root mean square
change (ours).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from modelmend.model.classifier import Classifier
    from modelmend.probe.trigger import Trigger

Reprobe = Callable[["Classifier", int], Sequence["Trigger"]]
"""``reprobe(pruned, seed)``: triggers found from scratch on a pruned network, by the reward's families only."""


@dataclass(frozen=True)
class Faded:
    """A trigger at a fraction of its strength; callable like the trigger."""

    trigger: Trigger
    fraction: float

    @property
    def family(self) -> str:
        """Name of the family that found it."""
        return self.trigger.family

    @property
    def target(self) -> int | None:
        """Class that it leads to."""
        return self.trigger.target

    def __call__(self, x: Tensor) -> Tensor:
        """Samples moved a fraction of the way to the triggered ones."""
        changed = self.trigger(x)
        return x + self.fraction * (changed - x)


@torch.no_grad()
def change(trigger: Trigger, x: Tensor) -> float:
    """Root mean square change that a trigger makes to samples."""
    return float((trigger(x) - x).square().mean().sqrt())


def held_to_size(fresh: Sequence[Trigger], first: Sequence[Trigger], x: Tensor) -> list[Trigger | Faded]:
    """Fade fresh triggers to the size that the first generation of their family and class had.

    Args:
        fresh: Triggers found on a pruned network.
        first: Triggers found on the suspect.
        x: Samples on which sizes are compared.

    Returns:
        Those whose family and class have a first generation, in order.
    """
    sizes: dict[tuple[str, int | None], float] = {}
    for trigger in first:
        pair = trigger.family, trigger.target
        sizes[pair] = max(sizes.get(pair, 0.0), change(trigger, x))
    held: list[Trigger | Faded] = []
    for trigger in fresh:
        if (trigger.family, trigger.target) not in sizes:
            continue
        largest = sizes[trigger.family, trigger.target]
        size = change(trigger, x)
        held.append(trigger if size <= largest else Faded(trigger, largest / size))
    return held


def growth(before: Sequence[Trigger], after: Sequence[Trigger], x: Tensor) -> dict[int, float]:
    """How many times larger a class's smallest triggers became: geometric mean over the families, by class.

    Args:
        before: Triggers found on the suspect.
        after: Triggers found in the same way on the pruned network.
        x: Samples on which sizes are compared.
    """
    first = {(t.family, t.target): change(t, x) for t in before}
    logs: dict[int, list[float]] = {}
    for t in after:
        if t.target is not None and first.get((t.family, t.target), 0.0) > 0:
            ratio = max(change(t, x), 1e-9) / first[t.family, t.target]
            logs.setdefault(t.target, []).append(math.log(ratio))
    return {target: math.exp(sum(values) / len(values)) for target, values in sorted(logs.items())}
