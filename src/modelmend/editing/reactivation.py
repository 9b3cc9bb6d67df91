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
from modelmend.metrics import accuracy, attack_success, paired_drop_counts
from modelmend.model.classifier import Classifier
from modelmend.model.hashing import content_hash
from modelmend.probe.trigger import Trigger
from modelmend.progress import Progress, silent
from modelmend.records import Measured

Pair = tuple[Tensor, Tensor]

TRIGGERED, EPOCHS, LR, BATCH, CLEAN, NORM = 5, 5, 0.01, 32, 200, 5.0
"""Re-tuning: triggered samples, schedule, most clean samples, largest norm of a gradient."""
RADIUS, STEPS, QUERIES = 0.05, 40, 64
"""Query: L-inf radius of the universal perturbation, sign-gradient steps, samples it is fitted on."""
CONTROLS = 4
"""Ordinary classes that the same is tried towards; the one that follows most counts."""
WORKS, TRIED = 0.5, 3
"""Success from which a trigger is worth waking; so many that tell something are tried, those to whose family the class
stands out most."""
HEADROOM = 0.5
"""An attempt says nothing where a larger share of the samples follows without a backdoor, or without any attempt."""
SPOILED = 0.3
"""Nor where it costs a larger share of the clean accuracy on the samples that it was made with."""


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
            torch.nn.utils.clip_grad_norm_(weights, NORM)
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
    attempt is reported: a maximum over a few, so that a little is found anywhere. The interval is that of the samples;
    which five were drawn, and how much ordinary classes differ, is not in it.

    Args:
        before: The suspect.
        after: The repaired model; read only.
        fit: Samples in 0..1 and labels that the attempts are made with.
        holdout: Others that their success is counted on.
        triggers: The probe's candidates.
        suspects: Classes by suspicion, first one first.
        seed: Of samples and order.
        progress: Called before every attempt.

    Returns:
        Share of the samples that follow the trigger to the suspect class after the attempt, less the share that did so
        before it or follow it to an ordinary class; ``counts`` as of a paired drop. 0 for a model that was not changed.
        Without a value where every attempt failed, or where ordinary classes are learned as easily. ``None`` where none
        of the triggers to the first suspect works on the suspect model, or there are too few samples or classes.
    """
    if content_hash(before.graph) == content_hash(after.graph):
        n = len(holdout[1])
        method = "the model was not changed: nothing was put to sleep"
        return Measured(value=0.0, low=0.0, high=0.0, n=n, counts=(0, 0), method=method) if n else None
    x, y = fit
    target = suspects[0] if suspects else None
    ordinary = [c for c in range(after.num_classes) if c not in suspects]
    ordinary = ordinary or [c for c in range(after.num_classes) if c not in suspects[:1]]
    if target is None or len(ordinary) < 2 or int((y != target).sum()) <= TRIGGERED:
        return None
    mine = sorted(
        ((_promise(before, t, fit, target), i) for i, t in enumerate(triggers) if t.target == target), reverse=True
    )
    chosen = [triggers[i] for promise, i in mine if promise[0]]
    if not chosen:
        return None
    order = torch.randperm(len(ordinary), generator=Generator().manual_seed(seed))[:CONTROLS]
    shuffled = torch.randperm(len(x), generator=Generator().manual_seed(seed))
    attempt = _Attempt(after, (x[shuffled], y[shuffled]), holdout, target, [ordinary[i] for i in order], seed)
    found: list[tuple[Measured, Trigger]] = []
    for number, trigger in enumerate(chosen):
        progress("trying to wake the backdoor", number, len(chosen) + 1)
        found.append((attempt.measure("re-tuning", trigger), trigger))
        if sum(measured.value is not None for measured, _ in found) == TRIED:
            break
    best, trigger = max(found, key=lambda pair: _value(pair[0]))
    if best.value is None:  # a query alone proves nothing
        return best
    progress("trying to wake the backdoor", len(chosen), len(chosen) + 1)
    if after.preprocessing.kind == "image":  # the radius is one of samples in 0..1
        best = max(best, attempt.measure("perturbed query", trigger), key=_value)
    progress("trying to wake the backdoor", len(chosen) + 1, len(chosen) + 1)
    return best


def _value(measured: Measured) -> float:
    return -1.0 if measured.value is None else measured.value


def _promise(classifier: Classifier, trigger: Trigger, pair: Pair, target: int) -> tuple[bool, float, float]:
    """Whether a trigger works, how far its class is ahead, how well it works: larger is better."""
    success = attack_success(classifier.predict(trigger(pair[0])), pair[1], target)
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
        learned: dict[int, Tensor] = {}
        for c in self.ordinary:
            given = attempt(trigger, marked, c)
            if given is not None:
                learned[c] = given
            if given is not None and attack_success(given, y, c) > HEADROOM:
                break
        woken = attempt(trigger, marked, target) if learned else None
        if woken is None:
            return Measured(method=f"{way}; {trigger.family} trigger: the attempt spoiled the model")
        taught = max(learned, key=lambda c: attack_success(learned[c], y, c))
        counted = (y != target) & (y != taught)
        method = (
            f"{way}; {trigger.family} trigger, class {target}: {100 * attack_success(asleep, y, target):.0f} % before, "
            f"{100 * attack_success(woken, y, target):.0f} % after; class {taught} after the same attempt: "
            f"{100 * attack_success(learned[taught], y, taught):.0f} %"
        )
        anyway = ((asleep == target) | (learned[taught] == taught))[counted]
        followed = (woken == target)[counted]
        n = len(anyway)
        if not n or int(anyway.sum()) > HEADROOM * n:
            return Measured(n=n, method=f"{method}; so many follow anyway that it tells nothing")
        only, other = int((followed & ~anyway).sum()), int((anyway & ~followed).sum())
        value, high = paired_drop_counts(only, other, n)
        low = -paired_drop_counts(other, only, n)[1]
        return Measured(value=value, low=low, high=high, n=n, counts=(only, other), method=method)

    def _away(self, c: int, count: int) -> Tensor:
        """The first samples that are not of a class."""
        x, y = self.fit
        return x[y != c][:count]

    def _retuned(self, trigger: Trigger, marked: Tensor, c: int) -> Tensor | None:
        chosen = trigger(self._away(c, TRIGGERED))
        clean = self.fit[0][:CLEAN], self.fit[1][:CLEAN]
        goal = torch.full((len(chosen),), c, dtype=clean[1].dtype)
        model = retuned(self.after, clean, (chosen, goal), seed=self.seed)
        with torch.no_grad():
            finite = bool(model(marked[:BATCH]).isfinite().all())
        lost = accuracy(self.after.predict(clean[0]), clean[1]) - accuracy(model.predict(clean[0]), clean[1])
        return model.predict(marked) if finite and lost <= SPOILED else None

    def _queried(self, trigger: Trigger, marked: Tensor, c: int) -> Tensor | None:
        chosen = trigger(self._away(c, QUERIES))
        delta = perturbation(self.after, chosen, torch.full((len(chosen),), c))
        return self.after.predict((marked + delta).clamp(0, 1))
