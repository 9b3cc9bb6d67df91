"""The one optimiser behind the families: universal triggers for many classes at once, smallest or of a given size.

Smallest: the radius is steered, ``log r <- log r + g e(tau - s)``, where ``s`` is the flip rate of the batch and ``e``
scales the error to -1..1, so that it settles where the trigger flips the share ``tau`` of the samples (in the spirit
of DDN, arXiv 1811.09600, made universal; the controller is ours). Unlike a size penalty it needs no weight, so sizes
compare between classes, between models, and before and after a repair. Given: the radius falls from the same start to
the given one in the first half, which finds what a small trigger from the outset does not, and stays there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modelmend.errors import InputError
from modelmend.probe.form import Form, Parameters, per_class, triggered
from modelmend.probe.trigger import Trigger
from modelmend.progress import Progress, silent

Forward = Callable[[Tensor, Tensor], Tensor]
"""``forward(changed, clean)``: logits ``(N, classes)`` of changed samples, given the clean ones that they come from."""
Start = Callable[[int, int], Parameters]
"""``start(target, number)``: parameters ``(1, ...)`` that the target's search of this number starts from."""
MOMENTUM = 0.8


@dataclass(frozen=True)
class Fit:
    """A trigger with what its search saw.

    Attributes:
        trigger: The candidate.
        size: Smallest radius at which it flips the share ``tau`` of the samples, or the radius given.
        flipped: Flip rate over the last third of the steps, on the samples of the search.
        capped: The radius ran into the form's largest: this class is not reached.
    """

    trigger: Trigger
    size: float
    flipped: float
    capped: bool


@dataclass(frozen=True)
class SearchConfig:
    """Settings of a search.

    Attributes:
        steps: Updates of each class's trigger.
        batch: Samples of one update, a class.
        tau: Flip rate to settle at.
        gain: ``g`` at the start; falls to a fifth of it.
        rate: Relative step at the start; falls to a tenth of it.
        together: Samples in one forward pass at most; more classes are searched one part after the other.
        margin: How much larger than the smallest radius the returned trigger is, so that it carries over.
        restarts: Searches of each class, of which the smallest trigger counts, or the most successful of a given size.
    """

    steps: int = 100
    batch: int = 16
    tau: float = 0.8
    gain: float = 0.15
    rate: float = 0.3
    together: int = 160
    margin: float = 1.15
    restarts: int = 1


def search(
    forward: Forward,
    form: Form,
    x: Tensor,
    y: Tensor,
    targets: Sequence[int],
    *,
    family: str,
    seed: int,
    config: SearchConfig,
    radius: Tensor | None = None,
    start: Start | None = None,
    progress: Progress = silent,
) -> list[Fit]:
    """Find one universal trigger for each target class.

    Args:
        forward: Changed and clean samples -> logits ``(N, classes)``, differentiable in the changed ones.
        form: The parametrisation.
        x: Clean samples ``(N, ...)``.
        y: Their labels ``(N,)``; a class's own samples are left out of its search.
        targets: Classes to search for.
        family: Name to put on the triggers.
        seed: Of starting points and batches; a class's result does not depend on which others are searched.
        config: Settings.
        radius: Fixed radius ``(len(targets),)``; ``None`` searches for the smallest.
        start: Other starting parameters than ``form.start``.
        progress: Called after every step.

    Returns:
        One fit for each target, in order.

    Raises:
        InputError: all samples belong to one of the targets.
    """
    starts = [(target, number) for number in range(config.restarts) for target in targets]
    radii = None if radius is None else radius.repeat(config.restarts)
    together = max(1, config.together // config.batch)
    parts = range(0, len(starts), together)
    fits: list[Fit] = []
    for number, first in enumerate(parts):
        part = slice(first, first + together)

        def step_done(message: str, done: int, total: int, number: int = number) -> None:
            progress(message, number * total + done, len(parts) * total)

        chosen = None if radii is None else radii[part]
        fits += _search_part(forward, form, x, y, starts[part], family, seed, config, chosen, start, step_done)
    rows = [fits[k :: len(targets)] for k in range(len(targets))]
    if radius is None:
        return [min(row, key=lambda one: (one.size, -one.flipped)) for row in rows]
    return [max(row, key=lambda one: one.flipped) for row in rows]


def _search_part(
    forward: Forward,
    form: Form,
    x: Tensor,
    y: Tensor,
    starts: list[tuple[int, int]],
    family: str,
    seed: int,
    config: SearchConfig,
    fixed: Tensor | None,
    start: Start | None,
    progress: Progress,
) -> list[Fit]:
    targets = [target for target, _ in starts]
    generators = [torch.Generator().manual_seed(seed * 1_000_003 + 9_973 * n + target) for target, n in starts]
    pools = [_pool(y, target) for target in targets]
    parameters = _starting(form, starts, generators, start)
    parameters = {name: value.to(x.device) for name, value in parameters.items()}
    goal = torch.tensor(targets, device=x.device).repeat_interleave(config.batch)
    log_radius = torch.full((len(targets),), math.log(form.largest / 3), device=x.device)
    wanted = None if fixed is None else fixed.to(x.device).float().clamp(max=form.largest).log()
    first = log_radius if wanted is None else torch.maximum(log_radius, wanted)
    ceiling = math.log(form.largest)
    velocity = {name: torch.zeros_like(value) for name, value in parameters.items()}
    polish = config.steps if fixed is not None else max(1, config.steps * 3 // 4)
    sizes: list[Tensor] = []
    flips: list[Tensor] = []
    form.project(parameters, log_radius.exp())
    for step in range(config.steps):
        cooling = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        batch = _batch(x, pools, generators, config.batch)
        leaves = {name: value.requires_grad_(True) for name, value in parameters.items()}
        logits = forward(triggered(form, leaves, batch).flatten(0, 1), batch.flatten(0, 1))
        losses = nn.functional.cross_entropy(logits, goal, reduction="sum") / config.batch
        gradients = torch.autograd.grad(losses, list(leaves.values()))
        with torch.no_grad():
            flipped = (logits.argmax(1) == goal).float().reshape(len(targets), -1).mean(1)
            if fixed is None and step < polish:
                gain = config.gain * max(0.2, 1 - step / polish)
                error = (config.tau - flipped) / torch.where(flipped > config.tau, 1 - config.tau, config.tau)
                log_radius = (log_radius + gain * error).clamp(max=ceiling)
                sizes.append(log_radius)
            elif fixed is None and step == polish:
                log_radius = torch.stack(sizes[-max(1, polish // 4) :]).mean(0)
            elif wanted is not None:
                log_radius = wanted + (first - wanted) * max(0.0, 1 - 2 * step / config.steps)
            grown = log_radius + (math.log(config.margin) if fixed is None and step >= polish else 0.0)
            steps = form.step(parameters, grown.exp())
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                value.requires_grad_(False)
                scale = gradient.reshape(len(targets), -1).square().mean(1).sqrt().clamp_min(1e-12)
                velocity[name].mul_(MOMENTUM).add_(gradient / per_class(scale, gradient), alpha=1 - MOMENTUM)
                length = config.rate * (0.1 + 0.9 * cooling) * steps[name]
                value.sub_(per_class(length, value) * velocity[name])
            form.project(parameters, grown.exp())
        flips.append(flipped)
        progress(f"probe {family}", step + 1, config.steps)
    size = log_radius.exp().tolist()
    late = torch.stack(flips[-max(1, config.steps // 3) :]).mean(0).tolist()
    parts = form.parts(parameters)
    return [
        Fit(
            Trigger(family, target, {name: part[k].detach().clone() for name, part in parts.items()}),
            size[k],
            late[k],
            fixed is None and size[k] >= 0.98 * form.largest,
        )
        for k, target in enumerate(targets)
    ]


def _pool(y: Tensor, target: int) -> Tensor:
    pool = (y != target).nonzero().flatten()
    if not len(pool):
        raise InputError(f"all samples belong to class {target}", field="samples", fix="give samples of other classes")
    return pool


def _starting(
    form: Form,
    starts: Sequence[tuple[int, int]],
    generators: Sequence[torch.Generator],
    start: Start | None,
) -> Parameters:
    single = [
        form.start(1, g) if start is None else start(target, n)
        for (target, n), g in zip(starts, generators, strict=True)
    ]
    return {name: torch.cat([s[name] for s in single]) for name in single[0]}


def _batch(x: Tensor, pools: Sequence[Tensor], generators: Sequence[torch.Generator], batch: int) -> Tensor:
    rows = [pool[torch.randint(len(pool), (batch,), generator=g)] for pool, g in zip(pools, generators, strict=True)]
    return x[torch.stack(rows).flatten()].reshape(len(pools), batch, *x.shape[1:])
