"""Is the backdoor gone or asleep: how easily it comes back, by re-tuning and by a perturbed query.

After arXiv 2410.09838 (re-tuning), 2405.16134 (query). The true trigger is used: final measurement only. A clean
model of the same recipe gives the reference, because some success needs no backdoor at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from benchmarks.cases import Case
from modelmend.editing.reactivation import BATCH, TRIGGERED, perturbation, retuned
from modelmend.metrics import attack_success
from modelmend.model.classifier import Classifier
from modelmend.redteam.attacks import Attack
from modelmend.redteam.sealed import PURPOSE

CLEAN_SHARE = 0.02
"""Re-tuning: clean samples, share of the training set."""
QUERIES = 256
"""Samples that the universal perturbation of a query is fitted on."""


@dataclass(frozen=True)
class Reactivation:
    """ASR after each way of waking the backdoor, 0..1."""

    retuned: float
    queried: float


def reactivate(case: Case, attacked: Case, classifier: Classifier, seed: int) -> Reactivation:
    """Try to wake a backdoor.

    Args:
        case: Where the clean samples come from.
        attacked: Whose trigger is used: ``case`` itself, or an infected case when ``case`` is the clean reference.
        classifier: The model, repaired or clean.
        seed: Of samples and order.
    """
    if attacked.sealed is None:
        raise ValueError("a clean case has no trigger to wake")
    attack = attacked.sealed.open(purpose=PURPOSE)
    return Reactivation(_retuned(case, classifier, attack, seed), _queried(case, classifier, attack, seed))


def excess(asr: float, clean: float, infected: float) -> float | None:
    """``(ASR - ASR_clean_model) / (ASR_infected - ASR_clean_model)``; ``None`` when the two do not differ."""
    return None if infected - clean < 1e-6 else (asr - clean) / (infected - clean)


def woken(
    case: Case, reference: Case, repaired: Classifier, infected: float | None, seed: int
) -> dict[str, float | None] | None:
    """How far a repaired model's backdoor can be woken, beside a clean model of the same recipe.

    Args:
        case: The infected model's case.
        reference: Case of a clean model of the same data set and architecture.
        repaired: The repaired model.
        infected: True ASR before the repair, 0..1.
        seed: Of samples and order.

    Returns:
        ``retuned`` and ``queried``: ASR, 0..1, after each attempt; with ``_excess``: the same as ``excess`` has it. ``None`` for
        a case that has no trigger.
    """
    if case.sealed is None or infected is None:
        return None
    asleep, clean = reactivate(case, case, repaired, seed), reactivate(reference, case, reference.classifier(), seed)
    return {
        "retuned": asleep.retuned,
        "retuned_excess": excess(asleep.retuned, clean.retuned, infected),
        "queried": asleep.queried,
        "queried_excess": excess(asleep.queried, clean.queried, infected),
    }


def _success(case: Case, classifier: Classifier, attack: Attack, delta: Tensor | None = None) -> float:
    x = attack.apply(case.x_final)
    if delta is not None:
        x = (x + delta).clamp(0, 1)
    return attack_success(classifier.predict(x), case.y_final, attack.target(case.y_final))


def _draw(case: Case, attack: Attack, count: int, generator: Generator) -> Tensor:
    """Positions of pool samples that are not of their target class."""
    away = torch.nonzero(attack.target(case.pool.y) != case.pool.y).flatten()
    return away[torch.randperm(len(away), generator=generator)[:count]]


def _retuned(case: Case, classifier: Classifier, attack: Attack, seed: int) -> float:
    generator = Generator().manual_seed(seed)
    limit = case.recipe.train_limit or 1000
    clean = torch.randperm(len(case.pool), generator=generator)[: max(BATCH, round(CLEAN_SHARE * limit))]
    marked = _draw(case, attack, TRIGGERED, generator)
    triggered = attack.apply(case.pool.x[marked]), attack.target(case.pool.y[marked])
    return _success(case, retuned(classifier, (case.pool.x[clean], case.pool.y[clean]), triggered, seed=seed), attack)


def _queried(case: Case, classifier: Classifier, attack: Attack, seed: int) -> float:
    index = _draw(case, attack, QUERIES, Generator().manual_seed(seed))
    x, goal = attack.apply(case.pool.x[index]), attack.target(case.pool.y[index])
    return _success(case, classifier, attack, perturbation(classifier, x, goal))
