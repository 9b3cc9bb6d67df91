"""How many gate samples a policy needs, and what a verdict at a given number can tell."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from modelmend.gate.schema import Policy
from modelmend.metrics import paired_drop_counts, upper_bound

_LIMIT = 10_000_000
_NEGLIGIBLE = 1e-9
SWAPPED = 0.02
"""Share of samples that a repair wins, and that it loses besides those of its drop, in the table: about what it was on
small networks (``docs/benchmarks.md``)."""


def smallest(fits: Callable[[int], bool]) -> int:
    """Smallest ``n >= 1`` with ``fits(n)``, a condition that stays true once it is; ``ValueError`` if none."""
    high = 1
    while not fits(high):
        high *= 2
        if high > _LIMIT:
            raise ValueError("no number of samples meets this bound")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def needed_for_accuracy(policy: Policy, looks: int = 1) -> int:
    """Smallest number of gate samples at which a repair that changes no prediction passes the accuracy check."""
    level = policy.bound_level(policy.accuracy.level, looks)
    return _needed_for_drop(policy.accuracy.max_drop_upper, level)


def needed_for_residual(policy: Policy, looks: int = 1) -> int:
    """Smallest number of triggered samples at which no success at all passes the residual check."""
    bounds = policy.backdoor
    level = policy.bound_level(bounds.level, looks)
    limit = min(bounds.max_success_upper, bounds.max_excess_upper)
    return max(bounds.min_samples, _needed_for_rate(limit, level))


@functools.cache
def _needed_for_drop(limit: float, level: float) -> int:
    return smallest(lambda n: paired_drop_counts(0, 0, n, level)[1] <= limit)


@functools.cache
def _needed_for_rate(limit: float, level: float) -> int:
    return smallest(lambda n: upper_bound(0, n, level) <= limit)


def needed(policy: Policy, looks: int = 1) -> int:
    """Smallest number of gate samples at which a flawless repair can pass: accuracy, residuals and privacy audit.

    Residuals count only samples that are not of the target class, so a data set with few classes needs more; the
    residual checks say so themselves.
    """
    return max(needed_for_accuracy(policy, looks), needed_for_residual(policy, looks), policy.privacy.min_samples)


def accuracy_pass_probability(
    policy: Policy, n: int, true_drop: float, looks: int = 1, swapped: float = SWAPPED
) -> float:
    """Probability 0..1 that a repair passes at ``n`` which truly loses ``true_drop + swapped`` and wins ``swapped`` samples."""
    from scipy.stats import binom

    bounds, level = policy.accuracy, policy.bound_level(policy.accuracy.level, looks)

    def passes(lost: int, won: int) -> bool:
        drop, upper = paired_drop_counts(lost, won, n, level)
        return drop <= bounds.max_drop and upper <= bounds.max_drop_upper

    rest = (true_drop + swapped) / (1 - swapped)  # rate of the lost ones among those that are not won
    total = sum(
        chance * _binomial_below(functools.partial(passes, won=won), n - won, rest)
        for won, chance in enumerate(binom.pmf(range(n + 1), n, swapped).tolist())
        if chance > _NEGLIGIBLE
    )
    return min(1.0, float(total))


def residual_pass_probability(policy: Policy, n: int, true_success: float, looks: int = 1) -> float:
    """Probability 0..1 that a trigger with this true success (no floor) passes the residual check at ``n``."""
    bounds, level = policy.backdoor, policy.bound_level(policy.backdoor.level, looks)
    if n < bounds.min_samples:
        return 0.0
    return _binomial_below(lambda hits: upper_bound(hits, n, level) <= bounds.max_success_upper, n, true_success)


def _binomial_below(passes: Callable[[int], bool], n: int, rate: float) -> float:
    """``P(X <= k)``, X binomial, k the largest count that passes (passing is monotone: fewer is better)."""
    from scipy.stats import binom

    if not passes(0):
        return 0.0
    low, high = 0, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if passes(middle) else (low, middle)
    return float(binom.cdf(low, n, rate))


def power_table(policy: Policy, sizes: tuple[int, ...] = (100, 200, 400, 800, 2000)) -> str:
    """Markdown: how often a repair passes each of the two checks, by gate samples and by the truth."""
    head = "| {} | " + " | ".join(f"n = {n}" for n in sizes) + " |\n|---|" + "---|" * len(sizes) + "\n"
    rows = [f"Policy `{policy.name}` needs at least {needed(policy)} gate samples.\n\n"]
    for title, rates, probability in (
        ("true accuracy drop", (0.0, 0.005, 0.01, 0.02, 0.04, 0.06), accuracy_pass_probability),
        ("true success of one family's trigger", (0.0, 0.05, 0.10, 0.20, 0.30, 0.50), residual_pass_probability),
    ):
        rows.append(head.format(title))
        for rate in rates:
            cells = " | ".join(_percent(probability(policy, n, rate)) for n in sizes)
            rows.append(f"| {100 * rate:g} % | {cells} |\n")
        rows.append("\n")
    return "".join(rows).rstrip("\n") + "\n"


def _percent(share: float) -> str:
    if share == 0:
        return "0 %"
    if share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{100 * share:.1f} %"


if __name__ == "__main__":
    from modelmend.gate.policy import load_policy

    names = sys.argv[1:] or ["default", "strict"]
    sys.stdout.write("\n".join(power_table(load_policy(name)) for name in names))
