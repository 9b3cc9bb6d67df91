"""Does the repaired model still do its work: overall, and in every class with enough samples?"""

from __future__ import annotations

import math
from collections.abc import Iterator

from modelmend.gate.checks.base import Case, check, line, within
from modelmend.gate.checks.bounds import Unusable, drop_upper
from modelmend.records import Check, ClassAccuracy, Measured

DROP = "Clean accuracy is kept"
CLASSES = "Clean accuracy is kept in every class"


@check("accuracy.drop", DROP, mendable=True)
def accuracy_drop(case: Case) -> Iterator[Check]:
    """Paired drop on the gate samples: the estimate within ``max_drop`` and its upper end within ``max_drop_upper``."""
    bounds = case.policy.accuracy
    measured = case.scorecard.accuracy_drop
    try:
        upper = drop_upper(measured, case.policy.bound_level(bounds.level, case.looks))
    except Unusable as error:
        yield line("accuracy.drop", DROP, "inconclusive", str(error), measured=measured, bound=bounds.max_drop_upper)
        return
    drop = measured.value
    assert drop is not None
    words = f"drop {_points(drop)} (at most {_points(bounds.max_drop)}), upper end {_points(upper)}"
    words += f" (at most {_points(bounds.max_drop_upper)})"
    if drop <= bounds.max_drop and upper > bounds.max_drop_upper and measured.n:
        words += f"; if the drop stays so, about {_enough(measured.n, drop, upper, bounds.max_drop_upper)} gate samples show it"
    outcome = within(drop <= bounds.max_drop and upper <= bounds.max_drop_upper)
    yield line("accuracy.drop", DROP, outcome, words, measured=measured, bound=bounds.max_drop_upper, high=upper)


@check("accuracy.classes", CLASSES, mendable=True)
def accuracy_classes(case: Case) -> Iterator[Check]:
    """Largest drop among classes with at least ``class_min_samples``: unlearning a backdoor can unlearn its class."""
    bounds, rows = case.policy.accuracy, case.scorecard.class_accuracy
    fault = _incomplete(rows, case.scorecard.gate_samples)
    if fault:
        yield line("accuracy.classes", CLASSES, "inconclusive", fault, bound=bounds.class_max_drop)
        return
    drops = {
        row.label: (round(row.before - row.after, 9), row.n)  # 6 of 40 are 15 points, not a rounding error more
        for row in rows
        if row.n >= bounds.class_min_samples and row.before is not None and row.after is not None
    }
    if not drops:
        reason = f"no class has {bounds.class_min_samples} gate samples"
        yield line("accuracy.classes", CLASSES, "not_run", reason, bound=bounds.class_max_drop)
        return
    label, (drop, n) = max(drops.items(), key=lambda item: item[1][0])
    outcome = within(drop <= bounds.class_max_drop)
    reason = f"class {label} changes most: {_points(drop)} of {n} samples (at most {_points(bounds.class_max_drop)}); "
    reason += f"{len(drops)} of {len(rows)} classes have enough samples"
    measured = Measured(value=drop, n=n, method="largest drop of a class")
    yield line("accuracy.classes", CLASSES, outcome, reason, measured=measured, bound=bounds.class_max_drop)


def _incomplete(rows: tuple[ClassAccuracy, ...], samples: int) -> str:
    """Why the table does not cover the gate split, or an empty string."""
    if len({row.label for row in rows}) != len(rows):
        return "a class is listed twice"
    if any(row.n < 0 for row in rows) or sum(row.n for row in rows) != samples:
        return f"the classes sum to {sum(row.n for row in rows)} samples, the gate split has {samples}"
    for row in rows:
        values = (row.before, row.after)
        if row.n and any(value is None or not 0 <= value <= 1 for value in values):
            return f"accuracy of class {row.label} is missing or no rate"
    return ""


def _enough(n: int, drop: float, upper: float, bound: float) -> int:
    """Samples at which an interval that narrows with their root would end at the bound, the drop being the same."""
    return math.ceil(n * ((upper - drop) / (bound - drop)) ** 2 / 10) * 10


def _points(share: float) -> str:
    return f"{100 * share:.1f} points"
