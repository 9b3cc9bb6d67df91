"""The first screen in words: the verdict, one sentence why, before and after, and what was not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modelmend.records import DOUBTFUL


@dataclass(frozen=True)
class Headline:
    """What a reader sees first.

    Attributes:
        tone: ``good``, ``bad``, ``wait`` or ``broken``; gives the colour.
        verdict: One or two words.
        why: One sentence.
        outcome: What happened at the registry, one sentence.
    """

    tone: str
    verdict: str
    why: str
    outcome: str


@dataclass(frozen=True)
class Line:
    """One row of the before/after table; texts are ready to show."""

    title: str
    before: str
    after: str
    note: str
    better: bool | None


def headline(facts: Mapping[str, Any]) -> Headline:
    """Verdict, reason and registry outcome in words."""
    error, decision = facts.get("error"), facts.get("decision")
    registry = _registry_words(facts.get("registration"))
    if error:
        where = str(error.get("stage") or "an unnamed stage").replace("_", " ")
        why = f"The run stopped in {where}: {error.get('message') or 'no message was left'}"
        return Headline("broken", "Failed", why, registry or "Nothing was registered.")
    if not decision:
        return Headline("wait", "No verdict", "The run did not reach the gate.", registry or "Nothing was registered.")
    checks = decision.get("checks") or []
    blocking = [check for check in checks if check.get("blocks")]
    if decision.get("verdict") == "pass":
        why = f"Every check that ran passed{_warned(checks)}. {_effect(facts)}"
        return Headline("good", "Passed", why.strip(), registry or "Nothing was registered.")
    few = next((check for check in blocking if check.get("name") == "power"), None)
    named = [few] if few else blocking
    words = "; ".join(f"{check.get('title')} – {check.get('reason')}" for check in named[:2])
    more = f"; and {len(named) - 2} more" if len(named) > 2 else ""
    count = f"{len(blocking)} of {len(checks)} checks keep it out"
    if decision.get("verdict") == "fallback":
        why = f"{count}, all of a kind that fine-tuning may mend: {words}{more}."
        return Headline("wait", "Not enough yet", why, registry or "Fine-tuning is tried before a final verdict.")
    return Headline("bad", "Refused", f"{count}: {words}{more}.", registry or "Nothing was registered.")


def comparison(facts: Mapping[str, Any]) -> list[Line]:
    """Rows of the before/after table, as far as they were measured."""
    card = facts.get("scorecard") or {}
    checks = (facts.get("decision") or {}).get("checks") or []
    blocked = {".".join(str(check.get("name")).split(".")[:2]) for check in checks if check.get("blocks")}
    lines: list[Line] = []
    if card:
        drop = _value(card.get("accuracy_drop"))
        judged = next((check for check in checks if check.get("name") == "accuracy.drop"), None)
        bound = _high(judged)  # the verdict's level is adjusted for planned looks
        bound = _high(card.get("accuracy_drop")) if bound is None else bound
        note = (
            ""
            if drop is None
            else f"drop {100 * drop:.1f} points" + ("" if bound is None else f", shown to be below {100 * bound:.1f}")
        )
        before, after = _value(card.get("accuracy_before")), _value(card.get("accuracy_after"))
        kept = False if "accuracy.drop" in blocked else None
        lines.append(Line("Clean accuracy", _percent(before), _percent(after), note, kept))
        if left := card.get("attack_after"):
            was, now = _value(card.get("attack_before")), _value(left)
            bounds = [check for check in checks if str(check.get("name")).startswith("backdoor.estimate.")]
            asked = f"; at most {_percent(bounds[0].get('bound'))}" if bounds else ""
            better = False if any(name.startswith("backdoor") for name in blocked) else _less(was, now)
            note = f"{left.get('method')}{asked}"
            lines.append(Line("Attack success, estimated", _percent(was), _percent(now), note, better))
        for role, title in (("used", "Trigger success, families used"), ("kept", "Trigger success, family kept back")):
            rows = [row for row in card.get("residuals") or [] if row.get("role") == role]
            if rows:
                was = max((_value(row.get("before")) or 0.0 for row in rows), default=None)
                now = max((_value(row.get("after")) or 0.0 for row in rows), default=None)
                families = ", ".join(sorted({str(row.get("family")) for row in rows}))
                better = False if f"backdoor.{role}" in blocked else _less(was, now)
                lines.append(Line(title, _percent(was), _percent(now), families, better))
        known = card.get("known_trigger_after")
        if known:
            was, now = _value(card.get("known_trigger_before")), _value(known)
            better = False if "backdoor.known_trigger" in blocked else _less(was, now)
            lines.append(Line("Known trigger's success", _percent(was), _percent(now), "", better))
        if woken := card.get("reactivation"):
            better = False if "backdoor.reactivation" in blocked else None
            note = str(woken.get("method") or "")
            lines.append(
                Line(
                    "Trigger success after waking, beyond an ordinary class", "", _percent(_value(woken)), note, better
                )
            )
    lines += _privacy_lines(facts.get("privacy") or {})
    if card.get("parameters_before"):
        was, now = card["parameters_before"], card.get("parameters_after")
        note = f"{card.get('groups_cut', 0)} of {card.get('groups_total', 0)} neuron groups cut"
        lines.append(Line("Parameters that count", _count(was), _count(now), note, None))
    seconds = _total(card.get("seconds"))
    if seconds:
        lines.append(Line("Time of the repair", "", _seconds(seconds), _passes(card), None))
    return lines


def unmeasured(facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """Checks that did not run: name, title, reason."""
    decision = facts.get("decision") or {}
    return [
        {key: str(check.get(key, "")) for key in ("name", "title", "reason")}
        for check in decision.get("checks") or []
        if check.get("outcome") == "not_run"
    ]


def in_doubt(evidence: Mapping[str, Any] | None) -> bool:
    """Whether the probe saw no backdoor, but is not sure: ``Evidence.suspected`` of a record's JSON content."""
    found = evidence or {}
    chance = found.get("probability")
    return not found.get("backdoor") and isinstance(chance, int | float) and chance >= DOUBTFUL


def _effect(facts: Mapping[str, Any]) -> str:
    card = facts.get("scorecard") or {}
    drop = _value(card.get("accuracy_drop"))
    rows = card.get("residuals") or []
    was = max((_value(row.get("before")) or 0.0 for row in rows), default=None)
    now = max((_value(row.get("after")) or 0.0 for row in rows), default=None)
    if drop is None or was is None or now is None:
        return ""
    cost = "costs no" if drop <= 0 else f"costs {100 * drop:.1f} points of"
    found = card.get("probe_before") or {}
    if found.get("backdoor") is False and not in_doubt(found):
        chance = _percent(found.get("probability"))
        told = f"The probe found no backdoor in this model (probability {chance}), and it can miss one."
        return f"{told} The repair {cost} clean accuracy."
    return (
        f"The repair {cost} clean accuracy; the strongest trigger that a fresh search finds worked on "
        f"{100 * was:.0f} % of the samples before and works on {100 * now:.0f} % now."
    )


def _warned(checks: list[Any]) -> str:
    warned = sum(check.get("outcome") == "warn" for check in checks)
    return "" if not warned else f", {warned} with a warning"


def _registry_words(registration: Any) -> str:
    if not registration:
        return ""
    where = f"{registration.get('name')} version {registration.get('version')}"
    alias = f", alias {registration['alias']}" if registration.get("alias") else ""
    return {
        "registered": f"Registered as {where}{alias}.",
        "existing": f"Registered before as {where}{alias}.",
        "unnamed": "Not registered: no name was given.",
        "refused": "Nothing was registered.",
    }.get(str(registration.get("status")), "")


def _privacy_lines(report: Mapping[str, Any]) -> list[Line]:
    deciding = [row for row in report.get("attacks") or [] if row.get("decides")]
    lines = []
    for subject in dict.fromkeys(str(row.get("subject")) for row in deciding):
        rows = [row for row in deciding if row.get("subject") == subject]
        worst = max(rows, key=lambda row: _value(row.get("after")) or 0.0)
        was, now = _value(worst.get("before")), _value(worst.get("after"))
        note = (
            f"AUC of the strongest attack ({worst.get('attack')}), 0.5 = nothing leaks; what the suspect leaks is in it"
        )
        texts = ("–" if was is None else f"{was:.2f}", "–" if now is None else f"{now:.2f}")
        lines.append(Line(f"Membership leakage, {subject} samples", *texts, note, None))
    return lines


def _total(stages: Any) -> float:
    values = stages.values() if isinstance(stages, Mapping) else ()
    return sum(value for value in values if isinstance(value, (int, float)))


def _value(measured: Any) -> float | None:
    value = measured.get("value") if isinstance(measured, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def _high(measured: Any) -> float | None:
    value = measured.get("high") if isinstance(measured, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None


def _less(was: float | None, now: float | None) -> bool | None:
    return None if was is None or now is None or was == now else now < was


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _count(value: Any) -> str:
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else "–"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _passes(card: Mapping[str, Any]) -> str:
    passes = _total(card.get("passes"))
    return f"{_count(round(passes))} sample passes" if passes else ""
