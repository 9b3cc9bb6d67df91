"""Great Expectations, asked so that it cannot pass by having nothing to say.

Left alone it passes NaN inside bounds, all-NaN columns, empty frames and empty suites. So every column that a rule
reads is also expected to be complete, and a result with another number of evaluated rules is refused.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from modelmend.errors import SamplesError
from modelmend.records import Record

if TYPE_CHECKING:
    from pandas import DataFrame

ROW = "row"
_SHOWN = 10


class Expectation(Record):
    """One rule and what came of it.

    Attributes:
        name: Great Expectations' name of the rule.
        column: The column it reads; empty for the whole table.
        title: What is expected, in words.
        observed: What was found, in words.
        outcome: ``pass``; or ``warn`` or ``fail``, by severity.
        unexpected_count: Rows that break it, where rows can.
        rows: The first of those rows, as numbered in the source.
        severity: ``refuse``: the samples are not used; ``warn``: they are.
        fix: What to do about it.
    """

    name: str
    column: str
    title: str
    observed: str
    outcome: Literal["pass", "warn", "fail"]
    unexpected_count: int | None = None
    rows: tuple[int, ...] = ()
    severity: Literal["refuse", "warn"]
    fix: str = ""


@dataclass(frozen=True)
class Rule:
    """What to ask.

    Attributes:
        expect: Class name in ``great_expectations.expectations`` without the leading ``Expect``.
        title: What is expected, in words.
        column: The column it reads; empty for the whole table.
        options: Its other arguments.
        severity: What a failure means.
        fix: What the user can do.
    """

    expect: str
    title: str
    column: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    severity: Literal["refuse", "warn"] = "refuse"
    fix: str = ""


def evaluate(frame: DataFrame, rules: Sequence[Rule]) -> list[Expectation]:
    """Ask every rule of ``frame``, which has a column ``row`` with the row numbers of the source.

    Columns that rules read are expected to be complete without being told.

    Returns:
        One result a rule, the completeness rules first.

    Raises:
        SamplesError: no rules, or Great Expectations did not evaluate each of them.
    """
    columns = dict.fromkeys(rule.column for rule in rules if rule.column)
    complete = [Rule("ColumnValuesToNotBeNull", f"{name} is known for every sample", name) for name in columns]
    asked = [*complete, *rules]
    with _quiet():
        found = _ask(frame, asked)
    if not rules or len(found) != len(asked):
        raise SamplesError(f"only {len(found)} of {len(asked)} checks were evaluated", fix="report this as a bug")
    return [_answer(rule, result) for rule, result in zip(asked, found, strict=True)]


def _ask(frame: DataFrame, rules: Sequence[Rule]) -> list[Any]:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    table = context.data_sources.add_pandas("samples").add_dataframe_asset("samples")
    batch = table.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    suite = gx.ExpectationSuite(name="samples")
    for number, rule in enumerate(rules):
        kind = getattr(gx.expectations, f"Expect{rule.expect}")
        about = {"column": rule.column} if rule.column else {}
        suite.add_expectation(kind(**about, **rule.options, meta={"number": number}))
    format_ = {"result_format": "SUMMARY", "unexpected_index_column_names": [ROW]}
    results = batch.validate(suite, result_format=format_).results
    by_number = {result.expectation_config.meta["number"]: result for result in results}
    return [by_number[number] for number in range(len(rules)) if number in by_number]


def _answer(rule: Rule, result: Any) -> Expectation:
    told = result.result or {}
    raised = (result.exception_info or {}).get("raised_exception", not told)
    rows = [int(at[ROW]) for at in told.get("partial_unexpected_index_list") or [] if ROW in at]
    count = told.get("unexpected_count")
    if raised:
        observed = "could not be evaluated"
    elif told.get("observed_value") is not None:
        observed = _words(told["observed_value"])
    elif count is not None:
        observed = f"{count} of {told.get('element_count', '?')} samples differ" if count else "all samples"
    else:
        missing = told.get("partial_missing_list") or []
        more = " ..." if told.get("missing_count", 0) > len(missing[:_SHOWN]) else ""
        observed = f"missing: {', '.join(map(str, missing[:_SHOWN]))}{more}" if missing else "all"
    passed = bool(result.success) and not raised
    return Expectation(
        name=result.expectation_config.type,
        column=rule.column,
        title=rule.title,
        observed=observed,
        outcome="pass" if passed else ("fail" if rule.severity == "refuse" else "warn"),
        unexpected_count=None if count is None else int(count),
        rows=tuple(rows[:_SHOWN]),
        severity=rule.severity,
        fix=rule.fix,
    )


def _words(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No telemetry, no log lines below a warning, none on standard output."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    yield
