"""A short, bounded fine-tuning on clean samples with and without probe triggers, stopped early on the select split.

The loss has two halves: clean samples must keep what the model said before, triggered samples must get what it said
without the trigger. "What it said" is its own soft output, which may be mixed with the true label: labels push the loss of
these few samples down, which is what membership inference reads. After every epoch the shares in which the classes are
answered are put back where that pays (``balance``); training goes on without it.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from modelmend.editing.augment import augment
from modelmend.editing.balance import shifted
from modelmend.editing.layers import partway, put_back, snapshot
from modelmend.editing.quality import Pair, Quality, SelectSplit
from modelmend.model.classifier import Classifier
from modelmend.progress import Progress, silent
from modelmend.records import Record

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Shares of the way to the epoch that leaves least of the triggers."""


class TuneConfig(Record):
    """Settings of a short fine-tuning."""

    epochs: int = Field(default=15, ge=0, description="most passes over the samples")
    patience: int = Field(default=5, ge=1, description="stop after so many epochs without a better candidate")
    batch_size: int = Field(default=32, ge=1)
    lr: float = Field(default=5e-4, gt=0, description="Adam step size, falling linearly to a tenth")
    weight_decay: float = Field(default=1e-2, ge=0, description="decoupled, per step times lr")
    anchor: float = Field(default=0.0, ge=0, description="pull back to the weights at the start, like weight_decay")
    rho: float = Field(default=0.0, ge=0, description="sharpness-aware ascent, relative to each weight; 0 = off")
    distill: float = Field(
        default=1.0,
        ge=0,
        le=1,
        description="share of the suspect's own soft output in the targets; of triggered samples only where it is right",
    )
    shift: float = Field(default=0.06, ge=0, le=0.5, description="augmentation: largest shift, share of the side")
    noise: float = Field(default=0.03, ge=0, description="augmentation: deviation of added noise")
    share: float = Field(default=0.5, gt=0, le=1, description="triggered samples for each clean one")


def tune(
    classifier: Classifier,
    teacher: Classifier,
    samples: Pair,
    select: SelectSplit,
    *,
    before: Quality,
    config: TuneConfig,
    seed: int,
    progress: Progress = silent,
    title: str = "repair step",
) -> tuple[Quality, list[dict[str, Any]]]:
    """Fine-tune in place and keep the best epoch, the start included. Batch-norm statistics stay as they are.

    Every epoch is judged as it is and with the shares of the classes put back (``SelectSplit.balanced``).
    Where the epoch that leaves least of the triggers is not the best one, for it lost too much, parts of the way to its
    weights are tried, too (WiSE-FT, arXiv 2109.01903).

    Args:
        classifier: Changed in place.
        teacher: The model whose clean behaviour is to be kept; not changed.
        samples: The repair split.
        select: Judges every epoch; its triggers are unlearned: each triggered sample draws one by weight.
        before: Quality of the model before anything was done: accuracy is held against it.
        config: Settings.
        seed: Of order, augmentation and the draw of triggers.
        progress: Called once an epoch.
        title: Text for ``progress``.

    Returns:
        Quality of what was kept, and one log row per epoch (row 0 is the start) and per part of the way (``share``);
        ``balanced`` says whether shares were put back.
    """
    x, y = samples
    generator = torch.Generator().manual_seed(seed)
    hard = functional.one_hot(y.cpu(), teacher.num_classes).float()
    parameters = [p for p in classifier.graph.parameters() if p.is_floating_point()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    start = [p.detach().clone() for p in parameters]
    image = classifier.preprocessing.kind == "image"
    best = select.measure(classifier)
    begin = kept = far = snapshot(classifier.graph)
    safest, kept_epoch, far_epoch = best.harm, 0, 0
    rows: list[dict[str, Any]] = [{"epoch": 0, **best.log(before)}]
    for epoch in range(1, config.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * (1 - 0.9 * (epoch - 1) / config.epochs)
        for index in torch.split(torch.randperm(len(x), generator=generator), config.batch_size):
            clean = augment(x[index], generator, shift=config.shift, noise=config.noise, image=image)
            soft, target = _targets(teacher, clean, hard[index], config.distill)
            hit = _draw_triggered(clean[: max(1, round(len(clean) * config.share))], select, generator)
            batch, target = (
                (clean, soft) if hit is None else (torch.cat([clean, hit]), torch.cat([soft, target[: len(hit)]]))
            )
            _step(classifier, batch, target, optimizer, parameters, rho=config.rho)
            if config.anchor:
                _pull(parameters, start, config.anchor * optimizer.param_groups[0]["lr"])
        quality, shift = select.balanced(classifier, before)
        rows.append({"epoch": epoch, "balanced": bool(shift), **quality.log(before)})
        progress(title, epoch, config.epochs)
        if quality.harm < safest:
            safest, far, far_epoch = quality.harm, snapshot(classifier.graph), epoch
        if (quality.cost(before), quality.loss) < (best.cost(before), best.loss):
            best, kept, kept_epoch = quality, shifted(snapshot(classifier.graph), shift), epoch
        elif epoch - kept_epoch >= config.patience:
            break
    for share in SHARES if far_epoch not in (0, kept_epoch) else ():
        put_back(classifier.graph, partway(begin, far, share))
        quality, shift = select.balanced(classifier, before)
        rows.append({"epoch": far_epoch, "share": share, "balanced": bool(shift), **quality.log(before)})
        if (quality.cost(before), quality.loss) < (best.cost(before), best.loss):
            best, kept = quality, shifted(snapshot(classifier.graph), shift)
    put_back(classifier.graph, kept)
    for parameter in parameters:
        parameter.requires_grad_(False)
        parameter.grad = None
    return select.measure(classifier), rows


@torch.no_grad()
def _targets(teacher: Classifier, x: Tensor, label: Tensor, distill: float) -> tuple[Tensor, Tensor]:
    """Targets of clean and of triggered samples ``(N, classes)``: the teacher's soft output mixed with the label.

    Of triggered ones the label alone where the teacher is wrong, which unlearns faster. Not of clean ones: a network that
    answers just these samples better than before tells who they were.
    """
    label = label.to(teacher.device)
    soft: Tensor = teacher(x).softmax(1)
    mixed = distill * soft + (1 - distill) * label
    right = (soft.argmax(1) == label.argmax(1))[:, None]
    return mixed, torch.where(right, mixed, label)


def _draw_triggered(x: Tensor, select: SelectSplit, generator: torch.Generator) -> Tensor | None:
    """Samples, each with a trigger that is drawn by weight; nothing without triggers."""
    if not select.triggers:
        return None
    choice = torch.multinomial(torch.tensor(select.weights), len(x), replacement=True, generator=generator)
    hit = x.clone()
    for i, trigger in enumerate(select.triggers):
        rows = (choice == i).nonzero().flatten().to(x.device)
        if len(rows):
            with torch.no_grad():
                hit[rows] = trigger(x[rows]).to(x.device, x.dtype)
    return hit


def _step(
    classifier: Classifier,
    x: Tensor,
    target: Tensor,
    optimizer: torch.optim.Optimizer,
    parameters: list[torch.nn.Parameter],
    *,
    rho: float,
) -> None:
    """One descent; with ``rho`` at the worst nearby weights (ASAM: ascent ``rho * w^2 g / ||w g||``)."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(functional.cross_entropy(classifier(x), target))
    if rho:
        moves = _ascend(parameters, rho)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(functional.cross_entropy(classifier(x), target))
        with torch.no_grad():
            for parameter, move in moves:
                parameter.sub_(move)
    torch.nn.utils.clip_grad_norm_(parameters, 5.0)
    optimizer.step()


@torch.no_grad()
def _ascend(parameters: list[torch.nn.Parameter], rho: float) -> list[tuple[torch.nn.Parameter, Tensor]]:
    scaled = [(p, p.abs() * p.grad) for p in parameters if p.grad is not None]
    norm = torch.stack([v.norm() for _, v in scaled]).norm() + 1e-12
    moves = [(p, rho * p.abs() * v / norm) for p, v in scaled]
    for parameter, move in moves:
        parameter.add_(move)
    return moves


@torch.no_grad()
def _pull(parameters: list[torch.nn.Parameter], start: list[Tensor], share: float) -> None:
    for parameter, origin in zip(parameters, start, strict=True):
        parameter.lerp_(origin, min(1.0, share))
