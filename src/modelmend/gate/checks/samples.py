"""Do the clean samples represent what the model was made for? If not, every figure below is about something else."""

from __future__ import annotations

from collections.abc import Iterator

from modelmend.gate.checks.base import Case, Outcome, check, line
from modelmend.records import Check

TITLE = "The samples represent the model's domain"
_OUTCOMES: dict[str | None, tuple[Outcome, str]] = {
    "match": ("pass", "the samples look like what the model was trained on"),
    "inconclusive": ("warn", "too few samples, or no batch norm, to tell; see the domain part of the report"),
    "mismatch": ("fail", "the samples do not look like what the model was trained on; give samples of its domain"),
    None: ("not_run", "the domain match was not measured"),
}


@check("samples.domain", TITLE)
def domain(case: Case) -> Iterator[Check]:
    """The domain match of the validation step; a mismatch blocks, an undecided one warns."""
    outcome, reason = _OUTCOMES[case.scorecard.domain]
    yield line("samples.domain", TITLE, outcome, reason)
