"""Is the evidence whole, and about the model it says it is about?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from modelmend.gate.checks.base import Case, check, line
from modelmend.records import Check

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_EQUAL = 1e-6


@check("integrity", "Evidence is whole and does not contradict itself")
def integrity(case: Case) -> Iterator[Check]:
    """Hashes present, figures about the same samples, accuracy before less after equal to the drop."""
    faults = list(_faults(case))
    title = "Evidence is whole and does not contradict itself"
    if faults:
        yield line("integrity", title, "fail", "; ".join(faults))
    else:
        yield line("integrity", title, "pass", "hashes are present and the figures agree")


def _faults(case: Case) -> Iterator[str]:
    card = case.scorecard
    hashes = {"suspect": card.suspect_hash, "repaired": card.repaired_hash, "samples": case.samples_hash}
    for role, value in hashes.items():
        if not _HASH.fullmatch(value):
            yield f"the hash of the {role} is missing"
    if case.looks < 1 or card.looks < 1:
        yield "the number of looks at the gate samples is below 1"
    if card.gate_samples < 1:
        yield "no gate samples"
    before, after, drop = card.accuracy_before, card.accuracy_after, card.accuracy_drop
    for role, measured in (("before", before), ("after", after), ("drop", drop)):
        if measured.n != card.gate_samples:
            yield f"accuracy ({role}) was measured on {measured.n or 'no'} samples, not on {card.gate_samples}"
    if before.value is None or after.value is None or drop.value is None:
        yield "accuracy before, after or their drop is missing or not a finite number"
    elif abs(before.value - after.value - drop.value) > _EQUAL:
        yield f"accuracy {before.value:.4f} before and {after.value:.4f} after do not give a drop of {drop.value:.4f}"
