from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from modelmend.probe.budget import LARGER, SHARES, Budgets, budgets
from modelmend.probe.families import Opened
from modelmend.probe.search import Fit, SearchConfig
from modelmend.probe.trigger import Trigger
from modelmend.records import ClassEvidence

USUAL, TARGET = 10.0, 0


@dataclass
class Suspect:
    """Stands for an opened family: class ``t`` is flipped by the share ``rates(t, size)`` of 100 samples."""

    rates: Any
    searched: list[tuple[int, float]] = field(default_factory=list)

    def search(self, targets: Any, *, radius: Any, **_: Any) -> list[Fit]:
        self.searched += list(zip(targets, radius, strict=True))
        return [
            Fit(Trigger("patch", t, {"size": torch.tensor(r)}), r, 0.0, False)
            for t, r in self.searched[-len(targets) :]
        ]

    def flips(self, trigger: Trigger, x: Any, y: Any, target: int) -> tuple[int, int]:
        return round(100 * self.rates(target, float(trigger.state()["size"]))), 100


def chosen(rates: Any, needed: float, accused: list[int], innocent: Sequence[int] = ()) -> tuple[Budgets, Suspect]:
    suspect = Suspect(rates)
    sizes = dict.fromkeys(range(8), USUAL) | {TARGET: needed}
    rows = [
        ClassEvidence(family="patch", target=t, success=0.8, strength=-size, anomaly=0.0, size=size)
        for t, size in sizes.items()
    ]
    x, y = torch.zeros(4, 1), torch.zeros(4, dtype=torch.long)
    told = {"accused": accused, "innocent": innocent}
    found = budgets(cast(Opened, suspect), (x, y), rows, [TARGET], **told, config=SearchConfig(), seed=0)
    return found, suspect


def steep(edge: float) -> Any:
    """The target is flipped from 2 on, the others from ``edge`` on."""
    return lambda target, size: float(size >= (2 if target == TARGET else edge))


def test_a_class_that_stands_out_is_judged_at_more_than_it_needed() -> None:
    found, _ = chosen(steep(4.9), 2.5, [TARGET])
    assert found.sizes[TARGET] == LARGER * 2.5 and found.quiet == SHARES[2] * USUAL


def test_where_ordinary_classes_are_flipped_too_the_largest_size_at_which_it_stands_out_counts() -> None:
    def rates(target: int, size: float) -> float:
        return float(size >= 3) if target == TARGET else 0.5 if size >= 5 else 0.1

    found, _ = chosen(rates, 9.0, [TARGET])
    assert found.quiet == SHARES[0] * USUAL < found.sizes[TARGET] == SHARES[2] * USUAL


def test_one_ordinary_class_that_is_easily_reached_hides_no_backdoor() -> None:
    def rates(target: int, size: float) -> float:
        return float(size >= (2 if target in (TARGET, 1) else 6))

    found, _ = chosen(rates, 3.0, [TARGET])
    assert found.sizes[TARGET] == LARGER * 3.0 > found.quiet == SHARES[0] * USUAL


def test_a_class_that_never_stands_out_is_judged_at_the_quiet_size() -> None:
    found, _ = chosen(steep(3.0), 9.0, [TARGET])
    assert found.sizes[TARGET] == found.quiet == SHARES[1] * USUAL


def test_a_class_that_nothing_accuses_is_not_searched() -> None:
    found, suspect = chosen(steep(4.9), 4.0, [])
    assert found.sizes[TARGET] <= found.quiet == SHARES[2] * USUAL
    assert all(target != TARGET for target, _ in suspect.searched)


def test_a_class_that_nothing_speaks_against_is_judged_where_it_is_seldom_reached() -> None:
    found, _ = chosen(steep(4.9), 8.0, [], [TARGET])
    assert found.sizes[TARGET] == found.quiet / 2 < 2


def test_a_class_with_a_tiny_trigger_is_judged_at_the_quiet_size() -> None:
    found, _ = chosen(steep(6.0), 1.0, [TARGET])
    assert found.sizes[TARGET] == found.quiet == SHARES[-1] * USUAL


def test_where_no_size_is_quiet_the_least_share_stands_for_it() -> None:
    found, _ = chosen(steep(0.0), 9.0, [TARGET])
    assert found.sizes[TARGET] == found.quiet == SHARES[0] * USUAL


def test_no_size_is_searched_twice() -> None:
    _, suspect = chosen(steep(3.0), 9.0, [TARGET])
    assert len(suspect.searched) == len(set(suspect.searched))
