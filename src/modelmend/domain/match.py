"""Do the samples come from the domain that the model was trained on? What can be said of that without training data.

Three questions, each with an interval from resampling groups of samples:

- *agreement*: is the model as often right as it is sure? Foreign samples make it sure and wrong. Needs the labels.
- *batch_norm*: do its batch-norm layers see what they saw in training? Needs layers with running statistics.
- *coverage*: which classes do the samples show, and does the model recognise them?

``structure`` (does the model notice when the pixels are shuffled?) is reported beside them and decides nothing.
Training often shifts images, which batch norm remembers: the samples are measured as they are and shifted with zeros
filled in, and the nearer of the two counts.

The limits are ours. Measured on six small networks, four of them infected, three trained with shifts (digits, GTSRB,
CIFAR-10 (JPEG); 100 to 1,000 samples): real test samples give a batch-norm distance of 0.01 to 0.05; noise and permuted
pixels 0.12 to 0.33; another data set 0.07 to 0.14, where agreement speaks up. Swapped colour channels went unnoticed.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from modelmend.domain.norms import distance, layer_distances, resamplings
from modelmend.domain.signals import NormLayer, Signals, observe
from modelmend.errors import SamplesError
from modelmend.model.classifier import Classifier
from modelmend.records import Figure, Measured, Record
from modelmend.samples.data import Samples

MAX_GAP = 0.2
"""Largest mean confidence less accuracy that still counts as agreement."""

MAX_DISTANCE = 0.08
"""Largest batch-norm distance (root mean squared Hellinger distance, 0..1) that still counts as the same domain."""

MIN_COVERAGE = 0.8
"""Least share of the model's classes with two recognised samples."""

MIN_STRUCTURE = 0.55
"""AUC of confidence between samples and their shuffled pixels above which the model notices the shuffling."""

_MOST = 2000
_DRAWS = 200

Outcome = Literal["match", "mismatch", "inconclusive", "not_run"]


class DomainPart(Record):
    """One question.

    Attributes:
        name: ``agreement``, ``batch_norm``, ``coverage`` or ``structure``.
        measured: The figure with its interval.
        limit: What it is held against.
        score: 0..1; 0.5 is the limit, 1 is no sign of another domain; None where there is no interval.
        outcome: By the interval: wholly on one side of the limit, or inconclusive.
        decides: Whether it counts for the answer.
        detail: In words.
    """

    name: str
    measured: Measured
    limit: Figure
    score: Figure = None
    outcome: Outcome
    decides: bool = True
    detail: str = ""


class DomainMatch(Record):
    """``domain.json``: the answer.

    Attributes:
        score: Least score of *agreement* and *batch_norm*, 0..1, with its interval; 0.5 is the limit.
        outcome: ``mismatch`` if one deciding part says so; ``match`` if all that ran say so; else ``inconclusive``.
        reason: In words.
        parts: The questions.
        undecidable: What these measurements cannot tell.
        samples: Samples looked at.
    """

    score: Measured
    outcome: Outcome
    reason: str
    parts: tuple[DomainPart, ...]
    undecidable: tuple[str, ...]
    samples: int


def domain_match(classifier: Classifier, samples: Samples, *, seed: int = 0) -> DomainMatch:
    """Measure whether samples represent the model's domain; one forward pass, up to three for images.

    Args:
        classifier: The model; not changed.
        samples: Labelled samples; at most 2,000, drawn by ``seed``, are looked at.
        seed: Of that draw, of the resampling and of the shuffled pixels.

    Raises:
        SamplesError: there are no samples.
    """
    if not len(samples):
        raise SamplesError("there are no samples", where=samples.source)
    if len(samples) > _MOST:
        samples = samples.subset(torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:_MOST])
    signals = observe(classifier, samples.x)
    even = torch.full((1, len(samples)), 1 / len(samples))
    weights = torch.cat([even, resamplings(samples.groups, _DRAWS, seed)])
    sure, best = signals.logits.softmax(1).max(1)
    hit = best == samples.y
    parts = [
        _agreement(sure, hit, weights),
        _batch_norm(signals, _shifted_norms(classifier, samples, signals, seed), weights),
        _coverage(samples, hit, classifier.num_classes),
    ]
    if samples.kind == "image":
        parts.append(_structure(classifier, samples.x, sure, seed))
    return _conclude(parts, len(samples), samples.kind)


def _agreement(sure: Tensor, hit: Tensor, weights: Tensor) -> DomainPart:
    gap = weights @ (sure - hit.float())
    detail = f"the model is sure of {float(sure.mean()):.0%} and right on {float(hit.float().mean()):.0%}"
    return _judged("agreement", gap, MAX_GAP, "confidence less accuracy, bootstrap over groups", detail, len(sure))


def _shifted_norms(classifier: Classifier, samples: Samples, signals: Signals, seed: int) -> tuple[NormLayer, ...]:
    if samples.kind != "image" or not signals.norms:
        return ()
    return observe(classifier, shifted(samples.x, torch.Generator().manual_seed(seed))).norms


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image of ``(N, C, H, W)`` shifted by up to an eighth of its sides, at least a pixel; zeros come in."""
    n, _, height, width = x.shape
    up, left = max(1, height // 8), max(1, width // 8)
    padded = torch.nn.functional.pad(x, (left, left, up, up))
    rows = torch.randint(0, 2 * up + 1, (n, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * left + 1, (n, 1), generator=generator) + torch.arange(width)
    pick = torch.arange(n)[:, None, None]
    return padded.permute(0, 2, 3, 1)[pick, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _batch_norm(signals: Signals, moved: tuple[NormLayer, ...], weights: Tensor) -> DomainPart:
    if not signals.norms:
        detail = "the model has no batch norm with running statistics"
        return DomainPart(name="batch_norm", measured=Measured(), limit=MAX_DISTANCE, outcome="not_run", detail=detail)
    forms = [("as they are", signals.norms)] + ([("shifted", moved)] if moved else [])
    form, norms = min(forms, key=lambda named: float(distance(named[1], weights[:1])))
    values = distance(norms, weights)
    each = [float(layer_distances(layer, weights[:1]).sqrt()) for layer in norms]
    worst = max(range(len(each)), key=each.__getitem__)
    detail = f"samples {form}; farthest of {len(each)} layers: {norms[worst].name} with {each[worst]:.3f}"
    method = "root mean squared Hellinger distance to the running statistics, bootstrap over groups"
    return _judged("batch_norm", values, MAX_DISTANCE, method, detail, weights.shape[1])


def _coverage(samples: Samples, hit: Tensor, classes: int) -> DomainPart:
    known = torch.bincount(samples.y[hit], minlength=classes)[:classes] >= 2
    share = float(known.float().mean())
    absent = (~known).nonzero().flatten().tolist()
    missing = f"not shown or not recognised: classes {', '.join(map(str, absent[:10]))}{', ...' if absent[10:] else ''}"
    return DomainPart(
        name="coverage",
        measured=Measured(value=share, n=len(samples), method="share of classes with two recognised samples"),
        limit=MIN_COVERAGE,
        outcome="match" if share >= MIN_COVERAGE else "inconclusive",
        detail=missing if absent else "every class is shown and recognised",
    )


def _structure(classifier: Classifier, x: Tensor, sure: Tensor, seed: int) -> DomainPart:
    """AUC of confidence, samples against their pixel-shuffled selves: 0.5 says that the order of pixels is nothing."""
    flat = x.flatten(2)
    order = torch.rand(len(x), flat.shape[2], generator=torch.Generator().manual_seed(seed)).argsort(1)
    shuffled = flat.gather(2, order[:, None].expand_as(flat)).reshape(x.shape)
    other = observe(classifier, shuffled, norms=False).logits.softmax(1).max(1).values
    wins = (sure[:, None] > other).float() + 0.5 * (sure[:, None] == other).float()
    value, n = float(wins.mean()), len(x)
    spread = float((wins.mean(1).var() / n + wins.mean(0).var() / n).sqrt()) if n > 1 else 0.5  # DeLong
    low, high = max(0.0, value - 1.96 * spread), min(1.0, value + 1.96 * spread)
    surer = low > MIN_STRUCTURE
    return DomainPart(
        name="structure",
        measured=Measured(value=value, low=low, high=high, n=n, method="AUC of confidence, DeLong"),
        limit=MIN_STRUCTURE,
        outcome="match" if surer else "inconclusive",
        decides=False,
        detail=f"the model is {'surer' if surer else 'hardly surer'} of the samples than of their shuffled pixels",
    )


def _score(ratio: float) -> float:
    """1 at nothing, 0.5 at the limit (ratio 1), falling to 0: ``1 / (1 + max(0, ratio)^2)``."""
    return 1 / (1 + max(0.0, ratio) ** 2)


def _judged(name: str, values: Tensor, limit: float, method: str, detail: str, n: int) -> DomainPart:
    """A figure (first of ``values``) with the interval of its resamplings (the others), held against ``limit``."""
    low, high = torch.quantile(values[1:], torch.tensor([0.025, 0.975])).tolist()
    value = float(values[0])
    low, high = min(low, value), max(high, value)
    outcome: Outcome = "match" if high <= limit else "mismatch" if low > limit else "inconclusive"
    measured = Measured(value=value, low=low, high=high, n=n, method=method)
    return DomainPart(
        name=name, measured=measured, limit=limit, score=_score(value / limit), outcome=outcome, detail=detail
    )


def _conclude(parts: list[DomainPart], n: int, kind: str) -> DomainMatch:
    ran = [part for part in parts if part.decides and part.outcome != "not_run"]
    least = min((part for part in ran if part.score is not None), key=lambda part: part.score or 0.0)
    against = [part for part in ran if part.outcome == "mismatch"]
    unsure = [part for part in ran if part.outcome == "inconclusive"]
    outcome: Outcome = "mismatch" if against else "inconclusive" if unsure else "match"
    blamed = against or unsure
    if blamed:
        reason = "; ".join(f"{part.name}: {part.detail}" for part in blamed)
    else:
        reason = "no sign of another domain: " + ", ".join(part.name for part in ran)
    low, high = least.measured.low, least.measured.high
    limit = least.limit or 1.0
    score = Measured(
        value=least.score,
        low=None if high is None else _score(high / limit),
        high=None if low is None else _score(low / limit),
        n=n,
        method=f"least score of agreement and batch norm ({least.name})",
    )
    return DomainMatch(
        score=score,
        outcome=outcome,
        reason=reason,
        parts=tuple(parts),
        undecidable=_undecidable(parts, kind),
        samples=n,
    )


def _undecidable(parts: list[DomainPart], kind: str) -> tuple[str, ...]:
    words = [
        "whether the samples show all of the domain: conditions that they leave out (night, rare kinds) leave no trace",
        "small shifts (a moved or slightly noisy image) that neither statistics nor accuracy notice",
    ]
    if any(part.name == "batch_norm" and part.outcome == "not_run" for part in parts):
        words.append("foreign samples that the model happens to label right: without batch norm only the labels speak")
    if kind != "image":
        words.append("whether the order of the features is the training order, beyond what accuracy shows")
    return tuple(words)
