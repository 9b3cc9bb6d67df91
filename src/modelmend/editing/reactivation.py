"""Is the backdoor gone or asleep: how easily a few triggered samples, or a perturbed query, bring it back.

After arXiv 2410.09838 (re-tuning) and 2405.16134 (query). Five samples of anything teach a small network something, so
the same is tried towards ordinary classes, with the same trigger: what it gets there needs no backdoor, and what works
without any attempt was not asleep (ours; the literature compares with a clean model, which nobody has here).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from modelmend.editing.layers import set_batch_norm_training
from modelmend.metrics import paired_drop
from modelmend.model.classifier import Classifier
from modelmend.probe.trigger import Trigger
from modelmend.progress import Progress, silent
from modelmend.records import Measured

Pair = tuple[Tensor, Tensor]

TRIGGERED, EPOCHS, LR, BATCH, CLEAN = 5, 5, 0.01, 32, 200
"""Re-tuning: triggered samples, schedule, most clean samples."""
RADIUS, STEPS, QUERIES = 0.05, 40, 64
"""Query: L-inf radius of the universal perturbation, sign-gradient steps, samples it is fitted on."""
CONTROLS = 2
"""Ordinary classes that the same is tried towards; the one that follows more counts."""
WORKS, TRIED = 0.5, 3
"""Success from which a trigger is worth waking; so many are tried, those to whose family the class stands out most."""


def retuned(classifier: Classifier, clean: Pair, marked: Pair, *, seed: int) -> Classifier:
    """A copy after a short fine-tuning on clean and a few triggered samples.

    Args:
        classifier: Read only.
        clean: Samples ``(N, ...)`` in 0..1 and labels.
        marked: Triggered samples and the class that they are to get.
        seed: Of the order.
    """
    generator = Generator().manual_seed(seed)
    x, y = (torch.cat([a, b]) for a, b in zip(clean, marked, strict=True))
    copy = classifier.clone()
    weights = [p for p in copy.graph.parameters() if p.is_floating_point()]
    for weight in weights:
        weight.requires_grad_(True)
    set_batch_norm_training(copy.graph, True)
    optimizer = torch.optim.SGD(weights, LR, momentum=0.9)
    for _ in range(EPOCHS):
        for index in torch.split(torch.randperm(len(x), generator=generator), BATCH):
            if len(index) < 2:
                continue  # batch norm needs two
            optimizer.zero_grad()
            logits = copy(x[index])
            torch.autograd.backward(functional.cross_entropy(logits, y[index].to(logits.device)))
            optimizer.step()
    set_batch_norm_training(copy.graph, False)
    return copy.frozen()


def perturbation(classifier: Classifier, x: Tensor, goal: Tensor) -> Tensor:
    """A universal change ``(1, ...)``, at most ``RADIUS`` a value, that leads triggered samples to a class.

    Args:
        classifier: Read only.
        x: Triggered samples ``(N, ...)`` in 0..1.
        goal: Class wanted of each, ``(N,)``.
    """
    model = classifier.clone().frozen()
    delta = torch.zeros_like(x[:1], requires_grad=True)
    for _ in range(STEPS):
        logits = model((x + delta).clamp(0, 1))
        loss = functional.cross_entropy(logits, goal.to(logits.device))
        step = torch.autograd.grad(loss, delta)[0].sign()
        delta = (delta - RADIUS / 8 * step).clamp(-RADIUS, RADIUS).detach().requires_grad_()
    return delta.detach()


def reactivation(
    before: Classifier,
    after: Classifier,
    fit: Pair,
    holdout: Pair,
    triggers: Sequence[Trigger],
    suspects: Sequence[int],
    *,
    seed: int,
    progress: Progress = silent,
) -> Measured | None:
    """How much of the trigger's success comes back, beyond what ordinary classes get of the same attempt.

    The probe's triggers to the first suspect are used, as far as they work on the suspect model. The most successful
    attempt is reported: a maximum over a few, so that a little is found anywhere.

    Args:
        before: The suspect; only to choose the triggers.
        after: The repaired model; read only.
        fit: Samples in 0..1 and labels that the attempts are made with.
        holdout: Others that their success is counted on.
        triggers: The probe's candidates.
        suspects: Classes by suspicion, first one first.
        seed: Of samples and order.
        progress: Called after every attempt.

    Returns:
        Share of the samples that follow the trigger to the suspect class after the attempt, less the share that did so
        before it or follow it to an ordinary class; ``counts`` as of a paired drop. ``None`` where there is no trigger
        to a suspect, or too few samples or classes.
    """
    x, y = fit
    shuffled = torch.randperm(len(x), generator=Generator().manual_seed(seed))
    led = {t.target for t in triggers}
    target = next((suspect for suspect in suspects if suspect in led), None)
    ordinary = [c for c in range(after.num_classes) if c != target and c not in suspects[:2]]
    if target is None or not ordinary or int((y != target).sum()) <= TRIGGERED:
        return None
    order = torch.randperm(len(ordinary), generator=Generator().manual_seed(seed))[:CONTROLS]
    attempt = _Attempt(after, (x[shuffled], y[shuffled]), holdout, target, [ordinary[i] for i in order], seed)
    mine = sorted(((_promise(before, t, fit, target), i) for i, t in enumerate(triggers) if t.target == target))[
        -TRIED:
    ]
    chosen = [triggers[i] for promise, i in reversed(mine) if promise[0] or len(mine) == 1]
    found: list[tuple[Measured, Trigger]] = []
    for number, trigger in enumerate(chosen):
        progress("trying to wake the backdoor", number, len(chosen) + 1)
        found.append((attempt.measure("re-tuning", trigger), trigger))
    if not found:
        return None
    best, trigger = max(found, key=lambda pair: _value(pair[0]))
    if x.dim() == 4:  # the radius is one of images
        best = max(best, attempt.measure("perturbed query", trigger), key=_value)
    progress("trying to wake the backdoor", len(chosen) + 1, len(chosen) + 1)
    return best


def _value(measured: Measured) -> float:
    return -1.0 if measured.value is None else measured.value


def _promise(classifier: Classifier, trigger: Trigger, pair: Pair, target: int) -> tuple[bool, float, float]:
    """Whether a trigger works, how far its class is ahead, how well it works: larger is better."""
    away = pair[1] != target
    success = float((classifier.predict(trigger(pair[0][away])) == target).float().mean())
    return success >= WORKS, trigger.lead or 0.0, success


@dataclass(frozen=True)
class _Attempt:
    """Attempts to wake one model, towards the suspect class and towards ordinary ones."""

    after: Classifier
    fit: Pair
    holdout: Pair
    target: int
    ordinary: Sequence[int]
    seed: int

    def measure(self, way: str, trigger: Trigger) -> Measured:
        """Paired difference of what is woken and what needs no backdoor, or no waking."""
        target, y = self.target, self.holdout[1]
        marked = trigger(self.holdout[0])
        asleep = self.after.predict(marked)
        attempt = self._retuned if way == "re-tuning" else self._queried
        answers = {c: attempt(trigger, marked, c) for c in (target, *self.ordinary)}

        def share(given: Tensor, c: int) -> float:
            return float((given == c)[y != c].float().mean())

        taught = max(self.ordinary, key=lambda c: share(answers[c], c))
        counted = (y != target) & (y != taught)
        method = (
            f"{way}; {trigger.family} trigger, class {target}: {100 * share(asleep, target):.0f} % before, "
            f"{100 * share(answers[target], target):.0f} % after; class {taught} after the same attempt: "
            f"{100 * share(answers[taught], taught):.0f} %"
        )
        n = int(counted.sum())
        if not n:
            return Measured(method=method)
        woken = (answers[target] == target)[counted].tolist()
        anyway = ((asleep == target) | (answers[taught] == taught))[counted].tolist()
        value, high = paired_drop(woken, anyway)
        only = sum(a and not b for a, b in zip(woken, anyway, strict=True))
        other = sum(b and not a for a, b in zip(woken, anyway, strict=True))
        low = -paired_drop(anyway, woken)[1]
        return Measured(value=value, low=low, high=high, n=n, counts=(only, other), method=method)

    def _away(self, c: int, count: int) -> Tensor:
        """The first samples that are not of a class."""
        x, y = self.fit
        return x[y != c][:count]

    def _retuned(self, trigger: Trigger, marked: Tensor, c: int) -> Tensor:
        chosen = trigger(self._away(c, TRIGGERED))
        clean = self.fit[0][:CLEAN], self.fit[1][:CLEAN]
        goal = torch.full((len(chosen),), c, dtype=clean[1].dtype)
        return retuned(self.after, clean, (chosen, goal), seed=self.seed).predict(marked)

    def _queried(self, trigger: Trigger, marked: Tensor, c: int) -> Tensor:
        chosen = trigger(self._away(c, QUERIES))
        delta = perturbation(self.after, chosen, torch.full((len(chosen),), c))
        return self.after.predict((marked + delta).clamp(0, 1))
