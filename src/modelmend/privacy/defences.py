"""Output restriction, judged by an attacker who adapts to it, with its cost in what callers still get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from modelmend.model.classifier import Classifier
from modelmend.privacy.config import PrivacyConfig
from modelmend.privacy.statistics import auc_interval
from modelmend.privacy.subject import Subject

Restrict = Callable[[Tensor], Tensor]


def rounded(p: Tensor, decimals: int = 2) -> Tensor:
    """Probabilities ``(N, classes)`` rounded to so many decimals."""
    return p.round(decimals=decimals)


def top_k(p: Tensor, k: int = 3) -> Tensor:
    """The ``k`` highest probabilities, 0 elsewhere."""
    value, index = p.topk(min(k, p.shape[1]), 1)
    return torch.zeros_like(p).scatter_(1, index, value)


def label_only(p: Tensor) -> Tensor:
    """1 for the top class, 0 elsewhere."""
    return torch.zeros_like(p).scatter_(1, p.argmax(1, keepdim=True), 1.0)


RESTRICTIONS: dict[str, Restrict] = {"rounding to 2 decimals": rounded, "top 3": top_k, "label only": label_only}


def measure_defences(after: Classifier, subject: Subject, *, config: PrivacyConfig, seed: int) -> list[dict[str, Any]]:
    """AUC of a naive and of an adaptive attacker behind each restriction.

    The naive attacker reads the restricted probability of the true class. The adaptive one asks for the sample and
    ``config.queries`` noisy copies at several noise levels and averages: noise moves rounded values and labels across
    their steps, and the mean brings back what one answer hides (after Choquette-Choo et al. 2021, arXiv 2007.14321).

    Args:
        after: The repaired model.
        subject: Members and non-members.
        config: Settings.
        seed: Of the noise.

    Returns:
        A row for each restriction: ``naive`` and ``adaptive`` AUC with intervals, ``without`` (adaptive, no
        restriction), ``accuracy_drop`` (always 0: the top label stays), ``qualifies`` (G8: the adaptive AUC is lower
        than without, by more than half an interval), ``cost`` in words.
    """
    if subject.n < config.min_gate:
        return []
    x = torch.cat([subject.inside[0], subject.outside[0]])
    y = torch.cat([subject.inside[1], subject.outside[1]]).cpu()
    m = len(subject.inside[1])
    answers = _answers(after, x, config.queries, seed)
    cost = {
        "rounding to 2 decimals": "callers lose fine differences between scores",
        "top 3": "callers lose the scores of unlikely classes",
        "label only": "callers lose all scores: no thresholds, no ranking, no calibration",
    }
    rows: list[dict[str, Any]] = []
    free = _auc(_adaptive(answers, y, lambda p: p), m, config.level)
    for name, restrict in RESTRICTIONS.items():
        naive = _auc(_true_class(restrict(answers[0]), y), m, config.level)
        adaptive = _auc(_adaptive(answers, y, restrict), m, config.level)
        rows.append(
            {
                "defence": name,
                "subject": subject.name,
                "naive": naive,
                "adaptive": adaptive,
                "without": free,
                "accuracy_drop": 0.0,
                "qualifies": bool(free["value"] - adaptive["value"] > (free["high"] - free["low"]) / 2),
                "cost": cost[name],
            }
        )
    return rows


@torch.no_grad()
def _answers(after: Classifier, x: Tensor, queries: int, seed: int) -> list[Tensor]:
    """Probabilities for the sample itself and for noisy copies."""
    generator = torch.Generator().manual_seed(seed)
    scale = x.double().std().item() if x.is_floating_point() else 0.0
    copies = [x]
    for i in range(queries if scale else 0):
        noise = torch.randn(x.shape, generator=generator).to(x.device, x.dtype)
        noisy = x + scale * (0.1, 0.2, 0.4, 0.8)[i % 4] * noise
        copies.append(noisy.clamp(0, 1) if after.preprocessing.kind == "image" else noisy)
    return [torch.cat([after(p).cpu().double().softmax(1) for p in torch.split(copy, 256)]) for copy in copies]


def _adaptive(answers: list[Tensor], y: Tensor, restrict: Restrict) -> Tensor:
    """Confidence that the restricted answer gives, and the mean over the noisy copies."""
    own = _true_class(restrict(answers[0]), y)
    if len(answers) == 1:
        return own
    return own + torch.stack([_true_class(restrict(p), y) for p in answers[1:]]).mean(0)


def _true_class(p: Tensor, y: Tensor) -> Tensor:
    return p.gather(1, y[:, None])[:, 0]


def _auc(scores: Tensor, m: int, level: float) -> dict[str, float]:
    interval = auc_interval((scores[:m].numpy(), scores[m:].numpy()), level)
    return {"value": round(interval.value, 4), "low": round(interval.low, 4), "high": round(interval.high, 4)}
