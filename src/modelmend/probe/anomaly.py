"""How far one class stands out from the others, robustly."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def anomaly_index(strength: ArrayLike, noise: float) -> NDArray[np.float64]:
    """Robust z-score ``(s - median) / max(1.4826 MAD, noise)`` of each class; large = stands out.

    The median absolute deviation as in Neural Cleanse (S&P 2019); the floor is ours and keeps nearly equal
    classes from making an outlier out of noise.

    Args:
        strength: Larger = more like a backdoor, on a log scale, ``(K,)``. NaN stays NaN.
        noise: Spread that means nothing, on the same scale.

    Returns:
        ``(K,)``; zeros when there are fewer than three classes to compare with.
    """
    values = np.asarray(strength, dtype=np.float64)
    known = values[np.isfinite(values)]
    if len(known) < 3:
        return np.where(np.isfinite(values), 0.0, np.nan)
    median = np.median(known)
    spread = 1.4826 * np.median(np.abs(known - median))
    return np.asarray((values - median) / max(float(spread), noise))


def gap(strength: ArrayLike) -> float:
    """Distance from the strongest class to the second strongest, on the scale of ``strength``; 0 for one class."""
    values = np.sort(np.asarray(strength, dtype=np.float64))
    values = values[np.isfinite(values)]
    return float(values[-1] - values[-2]) if len(values) > 1 else 0.0
