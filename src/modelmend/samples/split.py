"""Disjoint parts of the clean samples: what fits, what rewards, what chooses, what judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from modelmend.errors import SamplesError
from modelmend.samples.data import Samples

SHARES: Mapping[str, float] = {"fit": 0.2, "reward": 0.2, "select": 0.2, "gate": 0.4}
"""Share of each part: repair 40 % (half fits triggers and edits, half rewards), select 20 %, gate 40 %."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Positions (int64, ascending) of the samples of each part; together they are all samples, once."""

    fit: Tensor
    reward: Tensor
    select: Tensor
    gate: Tensor

    @property
    def repair(self) -> Tensor:
        """``fit`` and ``reward`` together: what the repair may learn from."""
        return torch.cat([self.fit, self.reward]).sort().values

    def to_lists(self) -> dict[str, list[int]]:
        """For JSON."""
        return {f.name: getattr(self, f.name).tolist() for f in fields(self)}

    @staticmethod
    def from_lists(lists: Mapping[str, list[int]]) -> Splits:
        """The inverse of ``to_lists``."""
        return Splits(**{name: torch.tensor(lists[name], dtype=torch.long) for name in SHARES})


def split(samples: Samples, seed: int) -> Splits:
    """Divide samples by class and group.

    Groups are dealt whole, largest first, each to the part that lacks most of the group's class, then most overall.
    Which sample goes where depends on contents and seed, not on the order of the rows.

    Args:
        samples: With ``groups`` set: near-duplicates of one group stay together.
        seed: Of the order among equally large groups.

    Raises:
        SamplesError: too few groups for four parts.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(samples.groups.tolist()):
        members.setdefault(group, []).append(index)
    labels = samples.y.tolist()
    canonical = sorted(members.values(), key=lambda rows: min((samples.ids[i], labels[i]) for i in rows))
    order = np.random.default_rng(seed).permutation(len(canonical))
    dealt = sorted((canonical[i] for i in order), key=len, reverse=True)
    parts = _deal(dealt, labels)
    if min(map(len, parts.values())) == 0:
        raise SamplesError(
            f"{len(samples)} samples in {len(members)} groups are too few for four parts",
            where=samples.source,
            fix="give more samples: at least 10 unrelated ones a class",
        )
    return Splits(**{name: torch.tensor(sorted(rows), dtype=torch.long) for name, rows in parts.items()})


def draw_budget(pool: Samples, size: int, seed: int) -> Samples:
    """Draw ``size`` samples, each class by its share of the pool, at least one of each; all of a smaller pool.

    Args:
        pool: Clean samples.
        size: How many to draw (rounding can add or take a few).
        seed: Of the draw.
    """
    if size >= len(pool):
        return pool
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pool), generator=generator)
    chosen = []
    for label in torch.unique(pool.y):
        members = order[pool.y[order] == label]
        chosen.append(members[: max(1, round(size * len(members) / len(pool)))])
    return pool.subset(torch.cat(chosen).sort().values)


def _deal(groups: list[list[int]], labels: list[int]) -> dict[str, list[int]]:
    shares = np.array(list(SHARES.values()))
    of_class = np.zeros((max(labels, default=0) + 1, len(shares)))
    for label in labels:
        of_class[label] += shares
    overall = shares * len(labels)
    parts: dict[str, list[int]] = {name: [] for name in SHARES}
    names = list(SHARES)
    for rows in groups:
        own = [labels[i] for i in rows]
        label = max(set(own), key=lambda c: (own.count(c), -c))
        lacking = np.round(of_class[label], 6)
        best = max(range(len(names)), key=lambda k: (lacking[k], round(overall[k] / shares[k], 6), k))
        parts[names[best]] += rows
        overall[best] -= len(rows)
        for c in own:
            of_class[c, best] -= 1
    return parts
