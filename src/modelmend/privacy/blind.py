"""The blind baseline: can members be told from strangers without the model? Then an attack proves nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
_COMPONENTS = 16
_FOLDS = 5


def blind_scores(members: tuple[Tensor, Tensor], nonmembers: tuple[Tensor, Tensor], seed: int) -> tuple[Floats, Floats]:
    """Cross-validated scores of a classifier on raw inputs and labels that never sees the model.

    Logistic regression on principal components, on per-sample summaries (mean, deviation, extremes, roughness) and on
    the label: a shift of class shares, of brightness, of noise or of compression shows in one of them.

    Args:
        members: Samples ``(m, ...)`` and classes.
        nonmembers: Samples ``(n, ...)`` and classes.
        seed: Of the folds.

    Returns:
        Scores of members and of non-members, larger = more like a member; each from a fold that did not train on it.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    m = len(members[0])
    x = np.concatenate([_flat(members[0]), _flat(nonmembers[0])])
    y = np.concatenate([members[1].cpu().numpy(), nonmembers[1].cpu().numpy()])
    side = np.r_[np.ones(m), np.zeros(len(x) - m)]
    classes = np.eye(int(y.max()) + 1)[y]
    extra = np.concatenate([_summaries(x), classes], 1)
    scores = np.empty(len(x))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(x, side):
        pca = PCA(min(_COMPONENTS, x.shape[1], len(train) - 1), random_state=seed).fit(x[train])
        features = np.concatenate([pca.transform(x), extra], 1)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
        model.fit(features[train], side[train])
        scores[test] = model.decision_function(features[test])
    return scores[:m], scores[m:]


def _flat(x: Tensor) -> Floats:
    flat: Floats = x.detach().cpu().double().flatten(1).numpy()
    return flat


def _summaries(x: Floats) -> Floats:
    rough = np.abs(np.diff(x, axis=1)).mean(1) if x.shape[1] > 1 else np.zeros(len(x))
    columns = [x.mean(1), x.std(1), x.min(1), x.max(1), rough]
    summaries: Floats = np.stack(columns, 1)
    return summaries
