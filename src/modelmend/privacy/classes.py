"""Gates G5 and G6: can a class or a single training image be reconstructed? Only where a class is a person or thing."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modelmend.metrics import clopper_pearson
from modelmend.model.classifier import Classifier
from modelmend.privacy.config import PrivacyConfig
from modelmend.privacy.inversion import invert_pixels, invert_with_prior, linear_prior
from modelmend.privacy.likeness import Evaluators, excess, rank_one, train_evaluators
from modelmend.privacy.outcome import Outcome, finding, judge, not_run
from modelmend.privacy.statistics import Interval
from modelmend.privacy.subject import Pair
from modelmend.records import PrivacyFinding

_MOST_CLASSES = 64
_PER_CLASS = 5
_CONTROLS = 20


def audit_classes(
    after: Classifier, members: Pair, heldout: Pair, *, config: PrivacyConfig, seed: int
) -> tuple[list[PrivacyFinding], list[dict[str, Any]]]:
    """Reconstruct every class with two attacks and judge G5 and G6 on the worse.

    The attacks see the model from the inside (white-box), whatever the access: an upper bound for narrower access.

    Args:
        after: The repaired model.
        members: Images that the model was trained on (or repaired with).
        heldout: Images that it was not trained on: prior, evaluators and references come from them.
        config: Settings.
        seed: Of every draw.

    Returns:
        The two findings and a row for each attack.
    """
    problem = _problem(after, heldout, config)
    if problem:
        return [not_run(gate, "classes", problem, absolute=True) for gate in ("G5", "G6")], []
    x, y = heldout[0].to(after.device), heldout[1].cpu()
    generator = torch.Generator().manual_seed(seed)
    enough = [label for label in torch.unique(y).tolist() if int((y == label).sum()) >= _PER_CLASS]
    order = torch.randperm(len(enough), generator=generator)[:_MOST_CLASSES]
    classes = torch.tensor(enough)[order].sort().values
    evaluators, prior = train_evaluators(x, y, seed), linear_prior(x)
    start = x.mean(0, keepdim=True).expand(len(classes), *x.shape[1:])
    attacks = {
        "pixels": invert_pixels(after, classes, start, steps=config.inversion_steps),
        "linear prior": invert_with_prior(after, classes, prior, steps=config.inversion_steps),
    }
    control = prior.sample(_CONTROLS * len(classes), generator)
    claimed = classes.repeat(_CONTROLS)
    rows, judged = [], []
    for name, images in attacks.items():
        row, interval = _row(name, images, classes, evaluators, (control, claimed), (x, y), config)
        rows.append(row)
        judged.append((interval, row, excess(images, classes, (members[0].to(x), members[1].cpu()), (x, y))))
    return [_class_leak(judged, len(classes), config), _instance_leak(judged, config)], rows


def _problem(after: Classifier, heldout: Pair, config: PrivacyConfig) -> str:
    if after.preprocessing.kind != "image" or heldout[0].dim() != 4:
        return "samples are not images"
    counts = torch.bincount(heldout[1].cpu())
    if int((counts >= _PER_CLASS).sum()) < 2:
        return f"fewer than two classes have {_PER_CLASS} held-out images"
    return ""


def _row(
    name: str,
    images: Tensor,
    classes: Tensor,
    evaluators: Evaluators,
    control: tuple[Tensor, Tensor],
    heldout: Pair,
    config: PrivacyConfig,
) -> tuple[dict[str, Any], Interval | None]:
    """Figures of one attack; the interval is that of the median evaluator less its control."""
    hits, chance = evaluators.success(images, classes), evaluators.success(*control)
    n, m = len(classes), len(control[1])
    gains = {evaluator: hits[evaluator] / n - chance[evaluator] / m for evaluator in hits}
    row: dict[str, Any] = {
        "attack": f"inversion: {name}",
        "subject": "classes",
        "n_classes": n,
        "evaluators": {k: round(v / n, 4) for k, v in hits.items()},
        "control": {k: round(v / m, 4) for k, v in chance.items()},
        "evaluator_accuracy": evaluators.accuracy,
        "rank_1": round(rank_one(images, classes, *heldout), 4),
        "rank_1_control": round(rank_one(control[0], control[1], *heldout), 4),
    }
    if len(gains) < 3:
        return row, None
    middle = statistics.median_low(gains.values())
    evaluator = next(k for k, v in gains.items() if v == middle)
    half = 1 - (1 - config.level) / 2  # two intervals, each at half the error, bound the difference
    low, high = clopper_pearson(hits[evaluator], n, half)
    base_low, base_high = clopper_pearson(chance[evaluator], m, half)
    return row, Interval(middle, low - base_high, high - base_low)


def _class_leak(
    judged: list[tuple[Interval | None, dict[str, Any], Any]], n: int, config: PrivacyConfig
) -> PrivacyFinding:
    found = [(interval, row) for interval, row, _ in judged if interval is not None]
    if not found:
        reason = "fewer than three evaluators reach 60 % on held-out images: nobody can judge the reconstructions"
        return not_run("G5", "classes", reason, limit=config.inversion_limit, absolute=True)
    interval, row = max(found, key=lambda pair: pair[0].high)
    outcome: Outcome = judge(interval, config.inversion_limit, config.inversion_fail)
    text = f"classes recognised in reconstructions ({row['attack']}), median of three evaluators less control"
    apart = max(row["evaluators"].values()) - min(row["evaluators"].values())
    rank = max(other["rank_1"] - other["rank_1_control"] for _, other in found)
    if outcome == "pass" and (apart > 0.30 or rank > config.inversion_fail):
        outcome, text = "warn", f"{text}; evaluators disagree or correlation finds the class: a person should look"
    return finding(
        "G5", "classes", interval, limit=config.inversion_limit, fail_above=config.inversion_fail, n=n,
        level=config.level, method="two white-box attacks, Clopper-Pearson of both shares", text=text, absolute=True,
        forced=outcome,
    )  # fmt: skip


def _instance_leak(judged: list[tuple[Interval | None, dict[str, Any], Any]], config: PrivacyConfig) -> PrivacyFinding:
    from scipy.stats import t

    limit = config.instance_limit
    worst: Interval | None = None
    n = 0
    for _, _, values in judged:
        n = len(values)
        if n >= 3:
            half = float(t.ppf(0.5 + config.level / 2, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
            mean = float(np.mean(values))
            interval = Interval(mean, mean - half, mean + half)
            worst = interval if worst is None or interval.high > worst.high else worst
    if worst is None:
        return not_run(
            "G6", "classes", "fewer than three classes have images on both sides", limit=limit, absolute=True
        )
    return finding(
        "G6", "classes", worst, limit=limit, fail_above=None, n=n, level=config.level, absolute=True,
        method="SSIM with members less SSIM with held-out images of the class, t interval over classes",
        text="likeness of reconstructions to single training images beyond that to their class",
    )  # fmt: skip
