"""The one interface of all checks: what is judged, what a check gives back, and how it is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from modelmend.gate.schema import Policy
from modelmend.records import Check, Measured, PrivacyReport, Scorecard

Outcome = Literal["pass", "fail", "warn", "inconclusive", "not_run"]


@dataclass(frozen=True)
class Case:
    """Everything that a check may look at.

    Attributes:
        policy: The bounds.
        scorecard: What was measured on the gate split.
        privacy: What the audit found; ``None`` when it did not run.
        samples_hash: Hash of the validated samples.
        looks: How often the gate has looked at this gate split, this look included.
    """

    policy: Policy
    scorecard: Scorecard
    privacy: PrivacyReport | None
    samples_hash: str
    looks: int


Measure = Callable[[Case], Iterable[Check]]


@dataclass(frozen=True)
class GateCheck:
    """A registered check.

    Attributes:
        name: Prefix of the names of the lines that it gives.
        title: What it asks, for a reader.
        measure: Gives the lines; none means that nothing was measured, which blocks.
        mendable: A fine-tuning may turn its failure into a pass.
    """

    name: str
    title: str
    measure: Measure
    mendable: bool


CHECKS: dict[str, GateCheck] = {}
"""All registered checks by name, in the order in which the report shows them."""


def check(name: str, title: str, *, mendable: bool = False) -> Callable[[Measure], Measure]:
    """Register a function as a check: ``measure(case) -> lines``."""

    def register(measure: Measure) -> Measure:
        if name in CHECKS:
            raise ValueError(f"two checks are named {name!r}")
        CHECKS[name] = GateCheck(name, title, measure, mendable)
        return measure

    return register


def within(held: bool) -> Outcome:
    """``pass`` when the bound holds, else ``fail``."""
    return "pass" if held else "fail"


def line(
    name: str,
    title: str,
    outcome: Outcome,
    reason: str,
    *,
    measured: Measured | None = None,
    bound: float | None = None,
    high: float | None = None,
) -> Check:
    """One line of the decision; everything but pass and warn blocks until the judge finds it allowed.

    Args:
        name: Unique name, such as ``backdoor.used.patch.3``.
        title: What was asked.
        outcome: The answer.
        reason: The answer in words, with the numbers it rests on.
        measured: Gives value, low, high and n.
        bound: What the upper end (or the value) was held to.
        high: The upper end that was judged, where it differs from ``measured.high``.
    """
    m = measured or Measured()
    return Check(
        name=name,
        title=title,
        value=m.value,
        low=m.low,
        high=m.high if high is None else high,
        bound=bound,
        n=m.n,
        outcome=outcome,
        blocks=outcome not in ("pass", "warn"),
        reason=reason,
    )
