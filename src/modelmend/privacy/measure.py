"""One attack on one subject, before and after the repair, with its intervals."""

from __future__ import annotations

from modelmend.privacy.config import PrivacyConfig
from modelmend.privacy.covariate import expected
from modelmend.privacy.statistics import (
    Floats,
    Scores,
    adjusted_interval,
    adjustment,
    auc_interval,
    curve,
    paired_bootstrap,
    tpr_at_fpr,
)
from modelmend.privacy.subject import Line, Subject


def measure(
    name: str,
    subject: Subject,
    old: Floats | None,
    new: Floats,
    known: Floats,
    *,
    level: float,
    config: PrivacyConfig,
    seed: int,
) -> Line:
    """Measure one attack. Where the sides were drawn at random, adjust for what was known before the repair."""
    m, groups = len(subject.inside[1]), subject.groups
    after: Scores = (new[:m], new[m:])
    plain = auc_interval(after, level, groups)
    before: Scores | None = None if old is None else (old[:m], old[m:])
    judged, change = plain, None
    if subject.random:
        predicted = expected(known, new, seed)
        covariate: Scores = (predicted[:m], predicted[m:])
        judged = adjusted_interval(after, covariate, level, groups)
        beta = adjustment(curve(*after), curve(*covariate), groups)
        change = paired_bootstrap(
            covariate, after, level, seed=seed, draws=config.bootstrap, weight=beta, groups=groups
        )
    elif before is not None:
        change = paired_bootstrap(before, after, level, seed=seed, draws=config.bootstrap, groups=groups)
    return Line(
        attack=name,
        level=level,
        auc=judged,
        plain=plain,
        before=None if before is None else auc_interval(before, level, groups),
        change=change,
        low_fpr=tpr_at_fpr(*after, 0.01, level),
    )
