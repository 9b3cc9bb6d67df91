"""The smallest infected model: scikit-learn's 8x8 digits, seconds to train, no data to download.

On 8x8 pixels a 3x3 patch covers a seventh of the image and hides the digit itself: no probe can tell it from an ordinary
change of class. Enlarged to 16x16, the patch is as small beside the digit as a backdoor is in practice. The demo uses
that; the original size is for whoever needs seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import interpolate

from modelmend.progress import Progress, silent
from modelmend.redteam.train import Infected, Recipe, train

TRAIN, CLEAN = 900, 720


@dataclass(frozen=True)
class DigitsSplit:
    """1,797 digits in three disjoint parts; images ``(N, 1, side, side)`` in 0..1.

    Attributes:
        x_train: 900 images that the attacker trains on.
        y_train: Their classes.
        x_clean: 720 images that the defender has.
        y_clean: Their classes.
        x_test: 177 images for the final measurement.
        y_test: Their classes.
    """

    x_train: Tensor
    y_train: Tensor
    x_clean: Tensor
    y_clean: Tensor
    x_test: Tensor
    y_test: Tensor


def digits_split(seed: int = 0, side: int = 8) -> DigitsSplit:
    """Split the digits at random; a ``side`` other than 8 pixels enlarges them (bilinear)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=Generator().manual_seed(seed))
    x = (torch.as_tensor(images, dtype=torch.float32) / 16).reshape(-1, 1, 8, 8)[order]
    if side != 8:
        x = interpolate(x, size=side, mode="bilinear", align_corners=False)
    x = (x * 255).round() / 255
    y = torch.as_tensor(labels, dtype=torch.long)[order]
    first, second = TRAIN, TRAIN + CLEAN
    return DigitsSplit(x[:first], y[:first], x[first:second], y[first:second], x[second:], y[second:])


def digits_recipe(seed: int = 0, attack: str | None = "badnets", rate: float = 0.1) -> Recipe:
    """The recipe of the demo model."""
    return Recipe(
        dataset="digits",
        arch="cnn_small",
        attack=attack,
        rate=rate,
        seed=seed,
        epochs=30,
        lr=0.2,
        batch=64,
        augment="none",
    )


def train_infected_digits(
    seed: int = 0,
    *,
    attack: str | None = "badnets",
    rate: float = 0.1,
    side: int = 8,
    progress: Progress = silent,
) -> tuple[Infected, DigitsSplit]:
    """Train the demo model; the split's clean samples never touch the training.

    Args:
        seed: Of the split, the attack and the training.
        attack: Name in ``ATTACKS``, ``None`` for a clean model.
        rate: Poisoned share.
        side: Of the images, in pixels.
        progress: Called after every epoch.
    """
    split = digits_split(seed, side)
    infected = train(
        digits_recipe(seed, attack, rate),
        split.x_train,
        split.y_train,
        split.x_test,
        split.y_test,
        num_classes=10,
        progress=progress,
    )
    return infected, split
