"""The data sets that the kit trains on: a folder of parquet files ``<name>_{train,test}.parquet``."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modelmend.errors import InputError


@dataclass(frozen=True)
class DataSet:
    """A named data set; ``label`` is what tables call it.

    Attributes:
        stem: First part of the file names.
        label: What tables call it.
        num_classes: Number of classes.
        mean: Of the training pixels, one a channel, for the model's preprocessing.
        std: Likewise.
    """

    stem: str
    label: str
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


DATASETS = {
    d.stem: d
    for d in (
        DataSet("gtsrb", "GTSRB", 43, (0.34, 0.31, 0.32), (0.27, 0.26, 0.27)),
        DataSet("cifar10_jpeg", "CIFAR-10 (JPEG)", 10, (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
        DataSet("fashion_mnist", "Fashion-MNIST", 10, (0.286,), (0.353,)),
    )
}


@dataclass(frozen=True)
class Split:
    """Images ``(N, C, H, W)`` as uint8, classes ``(N,)`` and near-duplicate groups ``(N,)``."""

    images: Tensor
    y: Tensor
    groups: Tensor

    @property
    def x(self) -> Tensor:
        """Images as float32 in 0..1."""
        return self.images.float() / 255

    def subset(self, index: Tensor) -> Split:
        """The samples at ``index``."""
        return Split(self.images[index], self.y[index], self.groups[index])

    def __len__(self) -> int:
        return len(self.y)


def read_split(folder: Path, stem: str, part: str) -> Split:
    """Decode ``<stem>_<part>.parquet``; groups are (class, track) where the file has tracks, else equal image hashes.

    Raises:
        InputError: unknown data set, or the file is missing or unreadable.
    """
    import pandas as pd
    from PIL import Image

    if stem not in DATASETS:
        raise InputError(f"unknown data set {stem!r}", field="dataset", fix=f"one of {', '.join(DATASETS)}")
    path = folder / f"{stem}_{part}.parquet"
    try:
        frame = pd.read_parquet(path)
        arrays = [np.asarray(Image.open(io.BytesIO(data))) for data in frame["image"]]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"cannot read the data set: {error}", where=path, fix="pass the folder that holds it"
        ) from error
    stacked = np.stack(arrays)
    images = torch.from_numpy(stacked[:, None] if stacked.ndim == 3 else stacked.transpose(0, 3, 1, 2).copy())
    y = torch.tensor(frame["label"].to_numpy(dtype=np.int64))
    if "track" in frame:
        keys = frame["label"].to_numpy() * 1_000_000 + frame["track"].to_numpy()
    else:
        keys = difference_hash(images)
    groups = torch.from_numpy(np.unique(keys, return_inverse=True)[1].astype(np.int64))
    return Split(images, y, groups)


def difference_hash(images: Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """A 56-bit hash ``(N,)`` of which neighbour is brighter on an 8x8 grid; near-duplicates have the same."""
    grey = images.float().mean(1, keepdim=True)
    small = torch.nn.functional.adaptive_avg_pool2d(grey, 8)[:, 0]
    bits = (small[:, :, 1:] > small[:, :, :-1]).flatten(1).long()
    packed: np.ndarray[tuple[int], np.dtype[np.int64]] = (bits << torch.arange(bits.shape[1])).sum(1).numpy()
    return packed


def thin(split: Split, limit: int, seed: int) -> Tensor:
    """Indices of at most ``limit`` samples, drawn at random, a further near-duplicate only when every group has one."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(split), generator=generator)
    grouped = torch.argsort(split.groups[order], stable=True)
    groups = split.groups[order][grouped]
    rank = torch.empty(len(order), dtype=torch.long)
    rank[grouped] = torch.arange(len(groups)) - torch.searchsorted(groups, groups)
    return order[torch.argsort(rank, stable=True)][:limit].sort().values


def halves(split: Split) -> tuple[Tensor, Tensor]:
    """Indices of half A (the defender's clean budget) and half B (the final measurement) of a test file.

    Groups stay whole; within each class the groups go alternately to A and B in a fixed random order.
    """
    generator = torch.Generator().manual_seed(20_260)
    side = torch.zeros(int(split.groups.max()) + 1, dtype=torch.long)
    first = torch.full((len(side),), -1).scatter_(0, split.groups.flip(0), split.y.flip(0))
    for label in torch.unique(split.y):
        members = torch.nonzero(first == label).flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        side[members] = torch.arange(len(members)) % 2
    of_sample = side[split.groups]
    return torch.nonzero(of_sample == 0).flatten(), torch.nonzero(of_sample == 1).flatten()
