"""How good a finished candidate is, on the select split: clean accuracy and what the probe triggers still do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from modelmend.editing.balance import output_bias, prior_shift
from modelmend.editing.graphrun import Tail
from modelmend.errors import InputError
from modelmend.metrics import accuracy, attack_success, auc, robust_accuracy
from modelmend.model.classifier import Classifier
from modelmend.probe.trigger import Trigger
from modelmend.probe.weights import trigger_weights

Pair = tuple[Tensor, Tensor]
"""Samples ``(N, ...)`` in 0..1 and labels ``(N,)``."""

BUDGET = 0.01
_STEEP = 10.0
CLASS_BUDGET = 0.08
"""Estimated accuracy that one class may lose before it is priced apart."""
_CLASS_STEEP = 4.0
LEAK_BUDGET = 0.02
"""Rise of the AUC between repair and select split that is free: the audit's bound lies at what it measures plus its error."""
_LEAK_STEEP = 10.0
_FEW = 20
"""A class of so many samples is believed half."""
_OF_CLASS = 0.65
"""What a class loses, as a share of what its samples lose in right answers and in belief together: fitted to six edits."""
_BELIEF = 0.5
"""Points of accuracy that a point of belief is taken for: where both were measured, belief fell about twice as fast."""
_OTHERWISE = 0.1
"""Least error of the estimate by belief, as a share of the answers that changed."""


@dataclass(frozen=True)
class Kept:
    """What is left of the clean behaviour, on some clean samples.

    Attributes:
        accuracy: Top-1 accuracy, 0..1.
        belief: Mean over the samples of what the reference thinks of the answer, half by its top-1, half by all
            its probabilities, 0..1.
        changed: Share of the samples that are answered otherwise than by the reference, 0..1.
        samples: Number of samples.
    """

    accuracy: float
    belief: float
    changed: float
    samples: int

    def drop(self, before: Kept) -> float:
        """Loss of accuracy against ``before``, at least 0: an estimate that few labels do not decide (ours).

        By the labels it is unbiased, with variance ``changed / samples``: of two hundred samples with every seventh answered
        otherwise, a standard error of 2.7 points, more than all that may be lost, and a choice among many candidates
        picks the lucky one. By half of the fall in belief it is nearly free of chance, but only about right; its error is
        taken as half of it, or a tenth of ``changed``, whichever is larger. The two are weighed by their errors, so that
        many samples let the labels decide. Without a finite belief the labels decide alone.
        """
        by_label, by_belief = before.accuracy - self.accuracy, max(0.0, _BELIEF * (before.belief - self.belief))
        if not math.isfinite(before.belief - self.belief):
            return max(0.0, by_label)
        bias = max(by_belief / 2, _OTHERWISE * self.changed) ** 2
        variance = self.changed / max(1, self.samples)
        weight = bias / (bias + variance) if bias + variance > 0 else 1.0
        return max(0.0, weight * by_label + (1 - weight) * by_belief)

    def drop_of_class(self, before: Kept) -> float:
        """Loss of accuracy where all samples are of one class, at least 0, shrunk where they are few (ours).

        ``0.65 (fall in right answers + fall in belief, if it fell)`` times ``n / (n + 20)``. A boundary that moves between two classes
        costs one of them many answers and little belief; ``drop`` would trust the belief. Without a finite belief the
        answers decide alone.
        """
        answers, belief = before.accuracy - self.accuracy, before.belief - self.belief
        both = _OF_CLASS * (answers + max(0.0, belief)) if math.isfinite(belief) else answers
        return max(0.0, both) * self.samples / (self.samples + _FEW)


@dataclass(frozen=True)
class Quality(Kept):
    """Figures of one candidate: of the clean samples of the select split, of its triggers, and of each class.

    Attributes:
        loss: Mean clean cross-entropy.
        success: Success rate of each probe trigger, 0..1.
        robust: Robust accuracy on triggered samples, the mean over triggers by weight, 0..1; 1 without triggers.
        weights: How much each trigger counts, summing to one.
        chance: Probability that there is a backdoor at all, 0..1.
        classes: Each class apart, on the select split and, if that is known, once more on the repair split.
        leak: By how much the AUC with which the loss tells the repair from the select split has risen over the reference's; 0
            where either is not known. What the audit finds on the gate split is about the same (docs/methods.md).
    """

    loss: float
    success: tuple[float, ...]
    robust: float
    weights: tuple[float, ...]
    chance: float = 1.0
    classes: tuple[Kept, ...] = ()
    leak: float = 0.0

    @property
    def worst(self) -> float:
        """Highest success rate; 0 without triggers."""
        return max(self.success, default=0.0)

    @property
    def mean(self) -> float:
        """Mean success rate by weight; 0 without triggers."""
        return _weighted(self.success, self.weights)

    @property
    def harm(self) -> float:
        """What the triggers still do: ``chance * (mean success + (1 - robust) / 4)``."""
        return self.chance * (self.mean + (1 - self.robust) / 4)

    def cost(self, before: Quality) -> float:
        """What a choice among candidates minimises (ours).

        ``chance * (mean success + (1 - robust) / 4) + 3 drop + 10 max(0, drop - 1 point) + 4 max(0, class drop - 8 points)
        + 10 max(0, leak - 2 points)``, with ``drop`` the loss of clean accuracy against ``before`` and ``class drop`` that of
        the class that lost most.
        What a trigger does harms only if there is a backdoor; what accuracy is lost is lost for certain. The mean and not
        the worst, and by weight: among the triggers there often is one that no honest classifier of this size withstands,
        of a family in which the class does not stand out, and accuracy must not be paid for it. The class apart, because
        the surest way to silence every trigger is to forget its class, and that is a small part of the whole.
        """
        drop = self.drop(before)
        apart = _CLASS_STEEP * max(0.0, self.class_drop(before) - CLASS_BUDGET)
        apart += _LEAK_STEEP * max(0.0, self.leak - LEAK_BUDGET)
        return self.harm + 3 * drop + _STEEP * max(0.0, drop - BUDGET) + apart

    def class_drop(self, before: Quality) -> float:
        """Largest ``drop_of_class`` on either split; a class without samples is not priced.

        On the repair split, where there are twice as many, a class that was trained on loses less than it does elsewhere, so
        neither split may speak for the other.
        """
        pairs = zip(self.classes, before.classes, strict=True)
        return max((now.drop_of_class(was) for now, was in pairs), default=0.0)

    def log(self, before: Quality | None = None) -> dict[str, Any]:
        """JSON-ready figures; ``mean_success`` and ``robust`` are by ``weights``, which stand in ``SelectSplit.log``.

        With ``before`` also what a choice goes by: ``drop``, ``class_drop`` and ``cost``.
        """
        figures = {
            "accuracy": self.accuracy,
            "belief": self.belief,
            "changed": self.changed,
            "loss": self.loss,
            "worst_success": self.worst,
            "mean_success": self.mean,
            "robust": self.robust,
            "leak": self.leak,
        }
        if before is not None:
            figures |= {"drop": self.drop(before), "class_drop": self.class_drop(before), "cost": self.cost(before)}
        return {k: round(v, 4) for k, v in figures.items()} | {"success": [round(v, 4) for v in self.success]}


class SelectSplit:
    """The select split with every probe trigger applied once; measures candidates.

    Args:
        select: Clean samples and labels; they only choose, as long as ``repair`` is given.
        triggers: Probe triggers, the first generation first: it says how much each counts. A trigger without a target
            counts as successful where the class is not the true one.
        batch_size: Samples a batch.
        reference: The model whose clean behaviour is to be kept; without it the labels take the place of its beliefs.
        chance: Probability that there is a backdoor.
        repair: Samples of the repair split. They count for the loss of each class, of which the select split has few; the
            reference's shares of the classes are those on them, and what they gain over the select split is the leak.

    Raises:
        InputError: ``chance`` is no probability.
    """

    def __init__(
        self,
        select: Pair,
        triggers: Sequence[Trigger],
        batch_size: int = 128,
        *,
        reference: Classifier | None = None,
        chance: float = 1.0,
        repair: Pair | None = None,
    ) -> None:
        if not 0 <= chance <= 1:  # NaN, too
            raise InputError("this is no probability of a backdoor", field="chance", fix="give a number from 0 to 1")
        self.chance, self.triggers = chance, tuple(triggers)
        x, self.y = select[0], select[1].cpu()
        clean = x if repair is None else torch.cat([x, repair[0].to(x.device, x.dtype)])
        self._labels = self.y if repair is None else torch.cat([self.y, repair[1].cpu()])
        self._belief: Tensor | None = None
        self._told_apart = 0.5
        if reference is not None:
            logits = _logits(reference, clean, batch_size)
            self._belief, self._told_apart = logits.softmax(1), self._tell_apart(logits)
        self._targets = [trigger.target for trigger in triggers]
        self.weights = tuple((weight + 1 / len(triggers)) / 2 for weight in trigger_weights(triggers, x))
        """Half by the lead, half the same for all: what is found on a half-repaired model may be in a family that had none."""
        self._x = torch.cat([clean, *(triggered(trigger, x) for trigger in triggers)])
        self._batch_size = batch_size

    def log(self) -> dict[str, Any]:
        """What candidates are judged by, JSON-ready: ``chance``, and of each trigger family, class and weight."""
        named = zip(self.triggers, self.weights, strict=True)
        rows = [{"family": t.family, "target": t.target, "weight": round(weight, 4)} for t, weight in named]
        return {"chance": round(self.chance, 4), "triggers": rows}

    def measure(self, classifier: Classifier) -> Quality:
        """Figures of a classifier."""
        return self._judge(_logits(classifier, self._x, self._batch_size))

    def balanced(self, classifier: Classifier, before: Quality) -> tuple[Quality, dict[str, Tensor]]:
        """Figures with the answers put back to the reference's shares, and what to add to which tensor for it (``balance``).

        Where the model as it is costs less against ``before``, and where there is no reference or no bias of the classes,
        the figures are its own and nothing is added. The shares are those on the repair split, so that the select split
        only chooses; on the select split where the former is not known.
        """
        logits = _logits(classifier, self._x, self._batch_size)
        own, name = self._judge(logits), output_bias(classifier)
        if name is None or self._belief is None:
            return own, {}
        n = len(self.y) if len(self._labels) > len(self.y) else 0
        shift = prior_shift(logits[n : len(self._labels)], self._belief[n:].mean(0))
        level = self._judge(logits + shift)
        return (level, {name: shift}) if level.cost(before) < own.cost(before) else (own, {})

    def measurer(self, classifier: Classifier, first: str) -> Callable[[Classifier], Quality]:
        """Like ``measure`` for candidates that differ from ``classifier`` in weights from node ``first`` on only."""
        tail = Tail(classifier, first, self._x, self._batch_size)
        return lambda candidate: self._judge(tail.logits(candidate))

    def _judge(self, logits: Tensor) -> Quality:
        n, seen = len(self.y), len(self._labels)
        clean, rest = logits[:seen], logits[seen:].argmax(1).reshape(len(self._targets), n)
        success, robust = [], []
        for predicted, target in zip(rest, self._targets, strict=True):
            if target is None:
                success.append(1 - accuracy(predicted, self.y))
            else:
                success.append(attack_success(predicted, self.y, target))
            robust.append(robust_accuracy(predicted, self.y))
        told, classes = self._told(clean), range(clean.shape[1])
        splits = [(told[rows], self._labels[rows]) for rows in (slice(n), slice(n, seen))]
        return Quality(
            **vars(_kept(told[:n])),
            loss=float(functional.cross_entropy(clean[:n], self.y)) if n else 0.0,
            success=tuple(0.0 if math.isnan(rate) else rate for rate in success),  # NaN: every sample is of the target
            robust=_weighted(robust, self.weights) if robust else 1.0,
            weights=self.weights,
            chance=self.chance,
            classes=tuple(_kept(part[y == k]) for part, y in splits if len(y) for k in classes),
            leak=0.0 if self._belief is None else self._tell_apart(clean) - self._told_apart,
        )

    def _tell_apart(self, logits: Tensor) -> float:
        """AUC of the loss between repair (members) and select split; 0.5 without the former, or where it is not finite."""
        fits = logits.double().log_softmax(1).gather(1, self._labels[:, None])[:, 0]
        others, members = fits[: len(self.y)], fits[len(self.y) :]
        known = len(members) and len(others) and bool(fits.isfinite().all())
        return auc(members, others) if known else 0.5

    def _told(self, logits: Tensor) -> Tensor:
        """Of each clean sample ``(N, 3)``: whether the answer is right, the belief in it, whether it is another one."""
        labels = self._labels
        believed = functional.one_hot(labels, logits.shape[1]).float() if self._belief is None else self._belief
        answers = logits.argmax(1)
        top = believed.gather(1, answers[:, None])[:, 0]
        spread = (logits.float().softmax(1) * believed).sum(1)
        return torch.stack([answers == labels, (top + spread).double() / 2, answers != believed.argmax(1)], 1)


def _kept(told: Tensor) -> Kept:
    """Means over samples; nothing is lost where there are none."""
    if not len(told):
        return Kept(accuracy=1.0, belief=1.0, changed=0.0, samples=0)
    right, belief, changed = told.mean(0).tolist()
    return Kept(accuracy=right, belief=belief, changed=changed, samples=len(told))


def _weighted(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(weight * value for weight, value in zip(weights, values, strict=True))


def strongest(models: Sequence[Classifier], triggers: Sequence[Trigger], samples: Pair, most: int) -> list[Trigger]:
    """At most so many triggers, those of most weight times largest success on the samples with any model, in the order given."""
    if len(triggers) <= most:
        return list(triggers)
    split = SelectSplit(samples, triggers)
    found = [split.measure(model).success for model in models]
    success = [max(rates) for rates in zip(*found, strict=True)]
    order = sorted(range(len(triggers)), key=lambda i: -success[i] * split.weights[i])[:most]
    return [triggers[i] for i in sorted(order)]


@torch.no_grad()
def triggered(trigger: Trigger, x: Tensor, batch_size: int = 256) -> Tensor:
    """Samples with a trigger applied, in batches, on the device of ``x``."""
    return torch.cat([trigger(part).to(x.device, x.dtype) for part in torch.split(x, batch_size)]) if len(x) else x


@torch.no_grad()
def _logits(classifier: Classifier, x: Tensor, batch_size: int) -> Tensor:
    return torch.cat([classifier(part).cpu() for part in torch.split(x, batch_size)])
