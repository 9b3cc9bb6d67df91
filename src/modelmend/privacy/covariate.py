"""What the suspect's output on a sample, fixed before the repair, lets one expect of its score afterwards."""

from __future__ import annotations

import numpy as np

from modelmend.privacy.attacks import View
from modelmend.privacy.attacks.base import label_loss
from modelmend.privacy.statistics import Floats

_FOLDS = 5
_MOST_CLASSES = 64


def features(before: View) -> Floats:
    """What is known of each sample before the repair, ``(N, features)``: the suspect's output and the class."""
    from scipy.stats import rankdata

    log_p = before.logits.log_softmax(1).numpy()
    loss = label_loss(before.logits, before.y).numpy()
    top = np.sort(log_p, 1)[:, ::-1][:, : min(3, log_p.shape[1])]
    doubt = np.log(np.maximum(-np.expm1(top[:, :1]), 1e-12))
    columns = [rankdata(loss)[:, None] / len(loss), np.log(loss + 1e-9)[:, None], top, doubt]
    if log_p.shape[1] <= _MOST_CLASSES:
        columns += [before.logits.numpy(), np.eye(log_p.shape[1])[before.y.numpy()]]
    found: Floats = np.concatenate(columns, 1)
    return found


def expected(known: Floats, scores: Floats, seed: int) -> Floats:
    """Ranks of the scores as predicted from what was known before, ``(N,)``.

    Ridge regression, cross-fitted: no sample's own score enters its prediction, and nobody's side enters at all, so
    the prediction is a covariate that membership cannot have changed.

    Args:
        known: ``features`` of members and non-members together.
        scores: An attack's scores after the repair, in the same order.
        seed: Of the folds.
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import KFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ranks = rankdata(scores)
    predicted = np.full(len(scores), ranks.mean())
    if len(scores) < 4 * _FOLDS or ranks.std() == 0:
        return predicted
    for train, test in KFold(_FOLDS, shuffle=True, random_state=seed).split(known):
        model = make_pipeline(StandardScaler(), RidgeCV((1.0, 10.0, 100.0, 1000.0)))
        predicted[test] = model.fit(known[train], ranks[train]).predict(known[test])
    return predicted
