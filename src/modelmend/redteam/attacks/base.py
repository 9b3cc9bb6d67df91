"""What every attack has in common: who is poisoned, with which label, and what the attacker wants at test time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from modelmend.errors import InputError

Tensors = dict[str, Tensor]
Draw = Callable[[Generator, tuple[int, int, int]], Tensors]
Apply = Callable[[Tensor, Tensors], Tensor]
TrainApply = Callable[[Tensor, Tensors, Generator], Tensor]

_LEVELS = 255


def stored(x: Tensor) -> Tensor:
    """Images as a file would hold them: clipped to 0..1 and rounded to 8 bits."""
    return (x.clamp(0, 1) * _LEVELS).round() / _LEVELS


@dataclass(frozen=True)
class Kind:
    """One attack method; calling it draws one attack from a seed.

    Attributes:
        name: Key in ``ATTACKS``.
        draw: ``(generator, (C, H, W)) -> tensors`` that fix the trigger.
        apply: ``(x, tensors) -> x'``, the trigger at test time.
        apply_in_training: The form put on poisoned training samples, where it differs from ``apply``.
        cover: Put on extra samples that *keep their label*, so that only the exact trigger works.
        cover_ratio: Cover samples for each poisoned sample.
        clean_label: Only samples of the target class are marked and no label changes; the poison rate is then the
            share of the *target class*.
        all_to_all: Class ``y`` is sent to ``y + 1``; otherwise every class goes to one target.
        source: The paper.
    """

    name: str
    draw: Draw
    apply: Apply
    source: str
    apply_in_training: TrainApply | None = None
    cover: TrainApply | None = None
    cover_ratio: float = 0.0
    clean_label: bool = False
    all_to_all: bool = False

    def __call__(
        self, seed: int, input_shape: tuple[int, ...], num_classes: int, *, target: int | None = None
    ) -> Attack:
        """Draw target class, position and pattern.

        Args:
            seed: Same seed, same attack.
            input_shape: ``(C, H, W)``.
            num_classes: At least 2.
            target: The attacker's choice of a class in place of the drawn one.

        Raises:
            InputError: not an image shape, or a target that is no class.
        """
        if len(input_shape) != 3 or min(input_shape[1:]) < 8:
            raise InputError(
                f"attack {self.name!r} needs images (C, H, W) of 8 pixels or more",
                field="input_shape",
                fix="pass images",
            )
        if target is not None and not 0 <= target < num_classes:
            raise InputError(f"target {target} is no class of 0..{num_classes - 1}", field="target")
        generator = Generator().manual_seed(seed)
        drawn = int(torch.randint(num_classes, (1,), generator=generator))
        channels, height, width = input_shape
        tensors = self.draw(generator, (channels, height, width))
        label = None if self.all_to_all else drawn if target is None else target
        return Attack(self, label, num_classes, tensors)


@dataclass(frozen=True)
class Attack:
    """One drawn attack.

    Attributes:
        kind: The method.
        target_class: Attacker's class, ``None`` for all-to-all.
        num_classes: Classes of the data set.
        tensors: What fixes the trigger; all that a sealed file has to hold.
    """

    kind: Kind
    target_class: int | None
    num_classes: int
    tensors: Tensors

    def apply(self, x: Tensor) -> Tensor:
        """Put the trigger on test samples ``(N, C, H, W)`` in 0..1."""
        return stored(self.kind.apply(x, self.tensors))

    def target(self, y: Tensor) -> Tensor:
        """Attacker's class of samples whose true classes are ``y`` ``(N,)``."""
        if self.target_class is None:
            return (y + 1) % self.num_classes
        return torch.full_like(y, self.target_class)

    def choose(self, y: Tensor, rate: float, generator: Generator) -> tuple[Tensor, Tensor]:
        """Indices of the samples to poison and of the cover samples; disjoint.

        ``rate`` is a share of the whole set, or of the target class for a clean-label attack.
        """
        if not 0 < rate <= 1:
            raise InputError(f"poison rate {rate} outside (0, 1]", field="rate")
        order = torch.randperm(len(y), generator=generator)
        if self.kind.clean_label:
            pool = order[y[order] == self.target_class]
            count = round(rate * len(pool))
        else:
            pool = order if self.target_class is None else order[y[order] != self.target_class]
            count = round(rate * len(y))
        count = min(max(count, 1), len(pool))
        chosen = pool[:count]
        taken = torch.zeros(len(y), dtype=torch.bool)
        taken[chosen] = True
        rest = order[~taken[order]]
        return chosen, rest[: round(self.kind.cover_ratio * count)]

    def poison(self, x: Tensor, y: Tensor, rate: float, generator: Generator) -> tuple[Tensor, Tensor]:
        """A poisoned copy of a training set.

        Args:
            x: ``(N, C, H, W)`` in 0..1.
            y: True classes ``(N,)``.
            rate: Share of all samples; of the target class when the attack is clean-label.
            generator: Which samples, and the noise of cover samples.

        Returns:
            ``(x', y')`` of the same shapes.
        """
        chosen, covered = self.choose(y, rate, generator)
        x, y = x.clone(), y.clone()
        mark = self.kind.apply_in_training
        if mark is None:
            x[chosen] = self.apply(x[chosen])
        else:
            x[chosen] = stored(mark(x[chosen], self.tensors, generator))
        y[chosen] = self.target(y[chosen])
        if self.kind.cover is not None and len(covered):
            x[covered] = stored(self.kind.cover(x[covered], self.tensors, generator))
        return x, y
