"""The gate fails closed whatever is missing, and is monotone: worse evidence never passes where better was refused."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from modelmend.gate.judge import judge
from modelmend.gate.policy import Policy, load_policy
from modelmend.records import PrivacyReport, Scorecard
from tests.evidence import digest, drop, finding, good_card, good_privacy, rate, residual

POLICIES = [load_policy("default"), Policy(fallback="none"), Policy(allowed_not_run=())]
ESSENTIAL = [
    ("card", "accuracy_before", "value"),
    ("card", "accuracy_after", "value"),
    ("card", "accuracy_drop", "value"),
    ("card", "accuracy_drop", "high"),
    ("card", "accuracy_drop", "n"),
    ("card", "residuals", 0, "after", "value"),
    ("card", "residuals", 0, "after", "high"),
    ("card", "residuals", 0, "after", "n"),
    ("card", "residuals", 1, "after", "value"),
    ("card", "residuals", 1, "after", "high"),
    ("card", "class_accuracy", 2, "after"),
    ("card", "class_accuracy", 2, "before"),
    ("card", "suspect_hash"),
    ("card", "repaired_hash"),
    ("card", "residuals", 0),
    ("card", "residuals", 1),
    ("card", "class_accuracy", 1),
    ("privacy", "findings", 1, "measured", "value"),
    ("privacy", "findings", 1, "measured", "high"),
    ("privacy", "findings", 1, "limit"),
    ("privacy", "findings", 2, "measured", "high"),
    ("privacy", "findings", 1),
    ("privacy", "findings", 2),
    ("privacy",),
]


def without(value: Any, path: tuple[Any, ...], hole: Any) -> Any:
    """``value`` with the part at ``path`` taken out (list items) or replaced by ``hole`` (fields)."""
    head, rest = path[0], path[1:]
    if isinstance(value, tuple):
        if head >= len(value):
            return value
        return value[:head] + ((without(value[head], rest, hole),) if rest else ()) + value[head + 1 :]
    assert isinstance(value, BaseModel)
    data = dict(value)
    blank = "" if isinstance(data[head], str) else None if isinstance(data[head], int) else hole
    return type(value)(**{**data, head: without(data[head], rest, hole) if rest else blank})


def verdict(policy: Policy, card: Scorecard, privacy: PrivacyReport | None, looks: int = 1) -> str:
    return judge(policy, card, privacy, samples_hash=digest("c"), seed=0, looks=looks).verdict


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(POLICIES),
    st.sets(st.sampled_from(ESSENTIAL), min_size=1, max_size=6),
    st.sampled_from([None, math.nan, math.inf, -math.inf]),
    st.integers(1, 2),
)
def test_no_combination_of_missing_values_passes(policy, holes, hole, looks):
    evidence: dict[str, Any] = {"card": good_card(), "privacy": good_privacy()}
    for path in sorted(holes, key=lambda p: (-len(p), [str(part) for part in p]), reverse=False):
        kind, rest = path[0], path[1:]
        if not rest:
            evidence[kind] = None
        elif evidence[kind] is not None:
            evidence[kind] = without(evidence[kind], rest, hole)
    assert verdict(policy, evidence["card"], evidence["privacy"], looks) != "pass"


@st.composite
def cards(draw: st.DrawFn) -> Scorecard:
    n = draw(st.sampled_from([150, 200, 400, 900]))
    lost, won = draw(st.integers(0, n // 15)), draw(st.integers(0, 4))
    before = n - n // 10
    residuals = tuple(
        residual(role, family, hits=draw(st.integers(0, (3 * n) // 10)), n=n - n // 10)
        for role, family in (("used", "patch"), ("used", "warp"), ("kept", "additive"))
    )
    share = before / n
    classes = good_card().class_accuracy
    classes = tuple(
        row.model_copy(
            update={
                "n": n - 3 * (n // 4) if row.label == 0 else n // 4,
                "before": share,
                "after": draw(st.sampled_from([share, share - 0.1, 0.6])),
            }
        )
        for row in classes
    )
    known = draw(st.none() | st.integers(0, n // 10).map(lambda hits: rate(hits, n)))
    return good_card(
        gate_samples=n,
        accuracy_before=rate(before, n),
        accuracy_after=rate(before - lost + won, n),
        accuracy_drop=drop(lost, won, n).model_copy(
            update={"counts": draw(st.sampled_from([None, (lost, won)])), "level": 0.975}
        ),
        class_accuracy=classes,
        residuals=residuals,
        known_trigger_before=None if known is None else rate(n, n),
        known_trigger_after=known,
    )


@st.composite
def reports(draw: st.DrawFn) -> PrivacyReport:
    highs = draw(st.lists(st.sampled_from([0.03, 0.05, 0.06]), min_size=2, max_size=2))
    measured = [finding("G1", "repair").measured.model_copy(update={"high": high}) for high in highs]
    return good_privacy(
        findings=(finding("G1", "repair", measured=measured[0]), finding("G3", "repair", measured=measured[1]))
    )


WORSE = [
    ("accuracy_drop", "value"),
    ("accuracy_drop", "high"),
    ("residuals", 0, "after", "value"),
    ("residuals", 0, "after", "high"),
    ("residuals", 2, "after", "value"),
    ("residuals", 2, "after", "high"),
    ("known_trigger_after", "value"),
    ("known_trigger_after", "high"),
]


def raised(value: Any, path: tuple[Any, ...], by: float) -> Any:
    if not path:
        return None if value is None else value + by
    head, rest = path[0], path[1:]
    if value is None:
        return None
    if isinstance(value, tuple):
        return (*value[:head], raised(value[head], rest, by), *value[head + 1 :])
    return value.model_copy(update={head: raised(getattr(value, head), rest, by)})


@settings(max_examples=120, deadline=None)
@given(
    st.sampled_from(POLICIES[:2]),
    cards(),
    reports(),
    st.lists(st.tuples(st.sampled_from(WORSE), st.floats(0.0, 0.5)), min_size=1, max_size=3),
    st.floats(0.0, 0.4),
)
def test_worse_evidence_never_passes_where_better_was_refused(policy, card, report, changes, leak):
    if verdict(policy, card, report) == "pass":
        return
    worse = card
    for path, by in changes:
        worse = raised(worse, path, by)
    leaky = raised(report, ("findings", 1, "measured", "high"), leak)
    assert verdict(policy, worse, leaky) != "pass"


@settings(max_examples=40, deadline=None)
@given(
    cards(),
    reports(),
    st.lists(st.floats(0.0, 5.0), min_size=6, max_size=6).filter(lambda w: sum(w) > 0),
    st.floats(0, 1),
)
def test_the_composite_never_matters(card, report, weights, explained):
    names = ("backdoor", "accuracy", "privacy", "explainability", "time", "compute")
    other = Policy(composite=dict(zip(names, weights, strict=True)))
    shown = card.model_copy(update={"explainability": card.explainability.model_copy(update={"value": explained})})
    assert verdict(other, shown, report) == verdict(Policy(), card, report)


@settings(max_examples=40, deadline=None)
@given(cards(), reports())
def test_another_look_never_helps(card, report):
    if verdict(Policy(fallback="none"), card, report) != "pass":
        assert verdict(Policy(fallback="none"), card, report, looks=2) != "pass"
