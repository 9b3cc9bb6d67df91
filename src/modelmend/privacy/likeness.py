"""How much a reconstruction looks like its class: evaluators that never saw the model, correlation, structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

GOOD = 0.6
"""Held-out accuracy below which an evaluator is not asked."""


@dataclass(frozen=True)
class Evaluators:
    """Classifiers of different kinds trained on held-out images only.

    Attributes:
        models: Name -> fitted scikit-learn classifier, only those whose own accuracy is at least ``GOOD``.
        accuracy: Name -> cross-validated accuracy of every one that was trained.
    """

    models: dict[str, Any]
    accuracy: dict[str, float]

    def success(self, images: Tensor, classes: Tensor) -> dict[str, int]:
        """How many images each evaluator takes for the class that they should show."""
        flat = images.detach().cpu().flatten(1).numpy()
        return {name: int((model.predict(flat) == classes.numpy()).sum()) for name, model in self.models.items()}


def train_evaluators(x: Tensor, y: Tensor, seed: int) -> Evaluators:
    """Train three kinds on held-out images ``(N, C, H, W)``: linear, forest, nearest neighbours on components."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline

    flat, labels = x.detach().cpu().flatten(1).numpy(), y.cpu().numpy()
    parts = min(20, flat.shape[1], len(flat) // 2)
    kinds: dict[str, Any] = {
        "linear": LogisticRegression(C=1.0, max_iter=500),
        "forest": RandomForestClassifier(40, random_state=seed),
        "neighbours": make_pipeline(PCA(parts, random_state=seed), KNeighborsClassifier(3)),
    }
    accuracy = {name: float(cross_val_score(kind, flat, labels, cv=3).mean()) for name, kind in kinds.items()}
    models = {name: kind.fit(flat, labels) for name, kind in kinds.items() if accuracy[name] >= GOOD}
    return Evaluators(models, {name: round(value, 4) for name, value in accuracy.items()})


def rank_one(images: Tensor, classes: Tensor, x: Tensor, y: Tensor) -> float:
    """Share of images whose highest normalised cross-correlation with a class mean is with their own class, 0..1.

    Args:
        images: Reconstructions ``(n, ...)``.
        classes: The classes that they should show.
        x: Held-out images.
        y: Their classes.
    """
    known = torch.unique(y.cpu())
    means = torch.stack([_standard(x[y == label].mean(0).flatten()[None])[0] for label in known])
    best = known[(_standard(images.flatten(1)) @ means.T).argmax(1).cpu()]
    return float((best == classes.cpu()).float().mean())


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of every image of ``a`` ``(n, C, H, W)`` with every one of ``b`` ``(m, C, H, W)``: ``(n, m)``.

    Uniform windows of 7 pixels (or the image's side). Source: Wang et al., IEEE TIP 13 (2004).
    """
    size = min(7, *a.shape[-2:])
    c1, c2 = 0.01**2, 0.03**2

    def mean(x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, size, stride=1)

    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    rows = []
    for i in range(len(a)):
        covariance = mean(a[i : i + 1] * b) - mean_a[i : i + 1] * mean_b
        top = (2 * mean_a[i : i + 1] * mean_b + c1) * (2 * covariance + c2)
        bottom = (mean_a[i : i + 1] ** 2 + mean_b**2 + c1) * (var_a[i : i + 1] + var_b + c2)
        rows.append((top / bottom).flatten(1).mean(1))
    return torch.stack(rows)


def excess(images: Tensor, classes: Tensor, members: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor]) -> Any:
    """SSIM with members less SSIM with held-out images of the same class, one value for each image that has both."""
    values = []
    for image, label in zip(images, classes.tolist(), strict=True):
        inside, outside = members[0][members[1] == label], others[0][others[1] == label]
        if len(inside) and len(outside):
            near = (
                structural_similarity(image[None], inside).mean() - structural_similarity(image[None], outside).mean()
            )
            values.append(float(near))
    return np.asarray(values)


def _standard(flat: Tensor) -> Tensor:
    centred = flat - flat.mean(1, keepdim=True)
    scaled: Tensor = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return scaled
