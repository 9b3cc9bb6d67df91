"""Are these samples fit to judge a model by? Checked with Great Expectations; duplicates are dropped on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from modelmend.errors import SamplesError
from modelmend.records import Record
from modelmend.samples.accuracy import check_accuracy
from modelmend.samples.data import Samples
from modelmend.samples.duplicates import merge_groups, near_pairs
from modelmend.samples.expectations import Expectation, Rule, evaluate
from modelmend.samples.properties import table

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Checked", "Limits", "Validation", "check_accuracy", "validate"]


@dataclass(frozen=True)
class Limits:
    """What validation asks for. The figures are ours.

    Attributes:
        min_samples: Fewest distinct samples.
        min_classes: Fewest different classes; a single one says nothing about accuracy.
        min_class_share: Least share of the model's classes that must occur.
        min_per_class: Classes with fewer samples are warned about.
        max_imbalance: Largest class over smallest, beyond which is a warning.
        max_duplicates: Share of copies, beyond which is a warning.
        max_near_duplicates: Share of samples that nearly equal another, beyond which is a warning.
        max_contradictions: Share of samples with equal content but another label, beyond which is refused.
        max_constant: Share of images without any contrast, beyond which is refused.
    """

    min_samples: int = 20
    min_classes: int = 2
    min_class_share: float = 0.5
    min_per_class: int = 5
    max_imbalance: float = 20.0
    max_duplicates: float = 0.01
    max_near_duplicates: float = 0.1
    max_contradictions: float = 0.02
    max_constant: float = 0.1


class Validation(Record):
    """``validation.json``: every rule with what was found.

    Attributes:
        success: No rule of severity ``refuse`` failed.
        source: Where the samples came from.
        given: Samples read.
        kept: Samples after duplicates and contradictions were dropped.
        duplicates: Copies dropped; the first of equal samples is kept.
        contradictions: Samples dropped because equal content has different labels.
        near_duplicates: Kept samples that nearly equal another one; they stay in one split.
        groups: Groups that must stay in one split.
        class_counts: Kept samples a class.
        evaluated: Rules that were evaluated.
        expectations: The rules.
    """

    success: bool
    source: str
    given: int
    kept: int
    duplicates: int
    contradictions: int
    near_duplicates: int
    groups: int
    class_counts: tuple[int, ...]
    evaluated: int
    expectations: tuple[Expectation, ...]


@dataclass(frozen=True)
class Checked:
    """Samples that passed, without copies and with near-duplicates grouped; and the record of how."""

    samples: Samples
    validation: Validation


def validate(
    samples: Samples, *, input_shape: tuple[int, ...], num_classes: int, limits: Limits | None = None
) -> Checked:
    """Check samples and drop what must not count twice.

    Args:
        samples: As read.
        input_shape: What the model takes, without batch.
        num_classes: Size of the model's output.
        limits: What is asked for.

    Returns:
        The samples to use and the record. Rules of severity ``warn`` that failed are in the record only.

    Raises:
        SamplesError: a rule of severity ``refuse`` failed; lists the rules with their rows. ``error.validation`` holds
            the record.
    """
    limits = limits or Limits()
    if not len(samples):
        raise SamplesError("there are no samples", where=samples.source, fix="give at least a few a class")
    frame = table(samples)
    drop = (frame["copy_of"] >= 0) | (frame["contradicts"] > 0)
    kept = samples.subset(torch.from_numpy((~drop).to_numpy().nonzero()[0].copy()))
    pairs = list(near_pairs(kept.x)) if kept.kind == "image" and bool(torch.isfinite(kept.x).all()) else []
    kept = Samples(kept.x, kept.y, kept.ids, merge_groups(kept, iter(pairs)), kept.source, kept.classes, kept.kind)
    near = {i for pair in pairs for i in pair}
    counts = torch.bincount(kept.y[(kept.y >= 0) & (kept.y < num_classes)], minlength=num_classes).tolist()
    rules = [
        *_content_rules(samples.kind, input_shape, num_classes),
        *_class_rules(frame, limits, num_classes),
        *_duplicate_rules(limits, samples.kind),
        *(_contrast_rules(limits) if samples.kind == "image" else []),
    ]
    found = evaluate(frame, rules) + _summary_rules(len(kept), len(near), counts, limits)
    failed = [e for e in found if e.outcome == "fail"]
    validation = Validation(
        success=not failed,
        source=samples.source,
        given=len(samples),
        kept=len(kept),
        duplicates=int(((frame["copy_of"] >= 0) & (frame["contradicts"] == 0)).sum()),
        contradictions=int((frame["contradicts"] > 0).sum()),
        near_duplicates=len(near),
        groups=len(set(kept.groups.tolist())),
        class_counts=tuple(counts),
        evaluated=len(found),
        expectations=tuple(found),
    )
    if failed:
        raise _refusal(failed, validation)
    return Checked(kept, validation)


def _content_rules(kind: str, input_shape: tuple[int, ...], num_classes: int) -> list[Rule]:
    shape = "x".join(map(str, input_shape))
    rules = [
        Rule("ColumnValuesToBeBetween", f"labels are classes of the model (0..{num_classes - 1})", "label",
             {"min_value": 0, "max_value": num_classes - 1},
             fix=f"number the classes 0..{num_classes - 1} in the order of the model's outputs"),
        Rule("ColumnValuesToBeInSet", f"samples have the model's input shape {shape}", "shape", {"value_set": [shape]},
             fix="store samples of the model's input size"),
        Rule("ColumnValuesToBeBetween", "all values are finite", "finite", {"min_value": 1.0},
             fix="repair or remove the rows"),
    ]  # fmt: skip
    if kind == "image":
        rules += [
            Rule("ColumnValuesToBeBetween", "no pixel is below 0", "minimum", {"min_value": 0.0}),
            Rule("ColumnValuesToBeBetween", "no pixel is above 1", "maximum", {"max_value": 1.0}),
            Rule("ColumnMeanToBeBetween", "images are neither nearly black nor nearly white", "brightness",
                 {"min_value": 0.02, "max_value": 0.98}, "warn", "check the range in which pixels are stored"),
        ]  # fmt: skip
    return rules


def _class_rules(frame: DataFrame, limits: Limits, num_classes: int) -> list[Rule]:
    least = max(limits.min_classes, int(limits.min_class_share * num_classes))
    return [
        Rule("TableRowCountToBeBetween", f"at least {limits.min_samples} samples", "",
             {"min_value": limits.min_samples}, fix="give more samples"),
        Rule("ColumnUniqueValueCountToBeBetween", f"at least {least} of the model's {num_classes} classes occur",
             "label", {"min_value": least}, fix="add samples of the missing classes"),
        Rule("ColumnDistinctValuesToContainSet", "every class of the model occurs", "label",
             {"value_set": list(range(num_classes))}, "warn", "add samples of the missing classes"),
    ]  # fmt: skip


def _duplicate_rules(limits: Limits, kind: str) -> list[Rule]:
    return [
        Rule("ColumnValuesToBeBetween", f"at most {limits.max_duplicates:.0%} of the samples are copies", "copy_of",
             {"max_value": -1, "mostly": 1 - limits.max_duplicates}, "warn", "copies are dropped; the first is kept"),
        Rule("ColumnValuesToBeBetween", f"at most {limits.max_contradictions:.0%} of the samples contradict another",
             "contradicts", {"max_value": 0, "mostly": 1 - limits.max_contradictions},
             "refuse" if kind == "image" else "warn",
             "equal samples have different labels: check the labels"),
        Rule("ColumnValuesToBeBetween", "equal samples have equal labels", "contradicts", {"max_value": 0}, "warn",
             "the contradicting samples are dropped: check the labels"),
    ]  # fmt: skip


def _contrast_rules(limits: Limits) -> list[Rule]:
    return [
        Rule("ColumnValuesToBeBetween", f"at most {limits.max_constant:.0%} of the samples are constant", "contrast",
             {"min_value": 0.0, "strict_min": True, "mostly": 1 - limits.max_constant}, "refuse",
             "remove blank samples; check the range in which values are stored"),
        Rule("ColumnValuesToBeBetween", "no sample is constant", "contrast", {"min_value": 0.0, "strict_min": True},
             "warn", "remove blank samples"),
    ]  # fmt: skip


def _summary_rules(kept: int, near: int, counts: list[int], limits: Limits) -> list[Expectation]:
    """Rules about what remains, one figure each, asked the same way."""
    import pandas as pd

    present = [n for n in counts if n] or [0]
    figures = pd.DataFrame({
        "row": [0],
        "kept": [kept],
        "near_duplicates": [near / max(kept, 1)],
        "smallest_class": [min(present)],
        "imbalance": [max(present) / max(min(present), 1)],
    })  # fmt: skip
    rules = [
        Rule("ColumnMaxToBeBetween", f"at least {limits.min_samples} distinct samples", "kept",
             {"min_value": limits.min_samples}, fix="give more samples that are not copies"),
        Rule("ColumnMaxToBeBetween", f"at most {limits.max_near_duplicates:.0%} nearly equal another",
             "near_duplicates", {"max_value": limits.max_near_duplicates}, "warn",
             "near-duplicates stay in one split; give more varied samples"),
        Rule("ColumnMinToBeBetween", f"every class that occurs has at least {limits.min_per_class} samples",
             "smallest_class", {"min_value": limits.min_per_class}, "warn", "add samples of the rare classes"),
        Rule("ColumnMaxToBeBetween", f"the largest class is at most {limits.max_imbalance:g} times the smallest",
             "imbalance", {"max_value": limits.max_imbalance}, "warn", "add samples of the rare classes"),
    ]  # fmt: skip
    return evaluate(figures, rules)


def _refusal(failed: list[Expectation], validation: Validation) -> SamplesError:
    lines = []
    for e in failed:
        rows = f" (rows {', '.join(map(str, e.rows))}{', ...' if (e.unexpected_count or 0) > len(e.rows) else ''})"
        lines.append(f"{e.title}: {e.observed}{rows if e.rows else ''}")
    error = SamplesError(
        "the samples do not pass validation:\n    " + "\n    ".join(lines),
        where=validation.source,
        field=", ".join(dict.fromkeys(e.column for e in failed if e.column)) or None,
        fix="; ".join(dict.fromkeys(e.fix for e in failed if e.fix)) or "correct the rows named above",
    )
    error.validation = validation  # type: ignore[attr-defined]
    return error
