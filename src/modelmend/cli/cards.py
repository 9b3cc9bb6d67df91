"""How the command line shows cuts: the run's figures, a row a cut, and the evidence card of one group."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modelmend.errors import printable

DEFINITION = (
    "The harmonic mean of how faithful the agent's reasons are (PyG's characterization score) and the share of the fall "
    "in probe success that the listed cuts alone account for."
)
REASONS = 3
"""Reasons shown a cut; the card of a group has all."""
NARROW, WIDE = 36, 80
"""Letters of a list of channels in a table and in a card."""
Row = Mapping[str, Any]


def show_figures(console: Console, told: Row) -> None:
    """Print what was cut of what, and what that did to probe success and accuracy.

    Args:
        console: Where to.
        told: From ``explain.summary``.
    """
    cut, total = told["groups_cut"], told["groups_total"]
    _show_hashes(console, told)
    _say(console, f"[bold]cut {cut} of {total} neuron groups[/bold] ({percent(cut / max(1, total))})")
    probe = told["probe"]
    weighted = all("weight" in row for row in probe)
    weights = [row["weight"] if weighted else 1 / len(probe) for row in probe]
    before, after = (sum(w * row[k] for w, row in zip(weights, probe, strict=True)) for k in ("before", "after"))
    _say(console, f"probe success, mean over triggers: {percent(before)} before the cuts, {percent(after)} after")
    loss = f"accuracy: {points(-told['accuracy_drop'])} points on fit and reward samples"
    if told["select_drop"] is not None:
        loss += f", {points(-told['select_drop'])} on select samples"
    _say(console, loss)
    table = _table("trigger", "#class", "#weight", "#before", "#after")
    for row, weight in zip(probe, weights, strict=True):
        target = "any" if row["target"] < 0 else str(row["target"])
        shown = percent(weight, 0) if weighted else "-"
        table.add_row(safe(row["family"]), target, shown, percent(row["before"]), percent(row["after"]))
    _show(console, "probe success by candidate trigger (x: exaggerated so many times)", table)
    if not weighted:
        _note(console, "The run is of an earlier version: its means over triggers are not weighted.")


def show_nothing(console: Console, told: Row) -> None:
    """Print that nothing was cut, and why."""
    _show_hashes(console, told)
    _say(console, f"[bold]cut none of {told['groups_total']} neuron groups[/bold]: the pruned model is the suspect")
    for reason in told["why_nothing"]:
        console.print(f"  - {reason}", markup=False, highlight=False)


def _show_hashes(console: Console, told: Row) -> None:
    _say(console, f"suspect {_short(told['suspect_hash'])}, pruned {_short(told['pruned_hash'])}, seed {told['seed']}")


def show_score(console: Console, explanation: Row) -> None:
    """Print the explainability score, its interval, its rival, and what it is."""
    e = explanation
    span = f"95 % interval {e['low']:.2f} .. {e['high']:.2f}"
    rival = f"a random listing {e['random']:.2f}"
    _say(console, f"\n[bold]explainability {e['score']:.2f}[/bold] ({span}; {rival})")
    _note(console, DEFINITION)
    _note(
        console,
        f"Here: characterization {e['characterization']:.2f} (fidelity+ {e['fidelity_plus']:.2f}, fidelity- "
        f"{e['fidelity_minus']:.2f}), share {percent(e['share'], 0)} (random groups {percent(e['random_share'], 0)}).",
    )
    if len(e["listed"]) == len(e["cards"]):
        _note(console, "Every cut is listed, so the share is 100 % whatever was cut.")


def show_cuts(console: Console, explanation: Row) -> None:
    """Print one row a cut, in the order of the agent's path."""
    cards = {card["group"]: card for card in explanation["cards"]}
    table = _table("#step", "#group", "layer", "#agent", "#probe left", "#comes back", "agent's reasons")
    for row in explanation["path"]:
        card = cards[row["group"]]
        alone = card["leave_one_out"]
        reasons = [f"{percent(r['share'], 0)} {safe(r['name'])}" for r in card["because"][:REASONS]]
        table.add_row(
            str(row["step"]),
            str(row["group"]),
            f"{safe(card['layer'])}\n{_channels(card, NARROW)}",
            f"{probability(row['probability'])}\nrank {row['rank']}",
            percent(row["success"]),
            f"probe {points(alone['success_without_it'])}\nacc. {points(alone['accuracy_without_it'])}",
            "\n".join(reasons) or "-",
        )
    _show(console, "the cuts in the order of the agent's path", table)
    _note(console, "agent: probability it gave the cut when its turn came; rank among all actions.")
    _note(console, "comes back: points of probe success and accuracy when this cut alone is undone.")
    _note(console, "reasons: own attributes, share of what its answer rests on; the rest: --group N.")


def show_plain_cuts(console: Console, cut: Sequence[Row]) -> None:
    """Print what was cut when the run drew up no evidence."""
    table = _table("#group", "layer", "kind", "#channels")
    for row in cut:
        table.add_row(str(row["index"]), safe(row["layer"]), safe(row["kind"]), str(row["channels"]))
    _show(console, "what was cut; the run drew up no evidence (PruningConfig.explain was off)", table)


def show_card(console: Console, card: Row, step: Row, samples: Sequence[Row]) -> None:
    """Print everything that is known about one cut group.

    Args:
        console: Where to.
        card: Its evidence card.
        step: Its row of the agent's path.
        samples: A row a sample: ``input``, ``activation``, ``sample``, and where known ``label`` and ``id``.
    """
    alone = card["leave_one_out"]
    _say(console, f"[bold]group {card['group']}[/bold]: layer {safe(card['layer'])}, {_channels(card, WIDE)}")
    chance = f"the agent gave it {probability(step['probability'])} (rank {step['rank']})"
    _say(console, f"step {card['step']}: {chance}, and stopping {probability(step['value_of_stopping'])}")
    _say(console, f"probe success left after the step: {percent(step['success'])}")
    back = (
        f"probe success {points(alone['success_without_it'])}, accuracy {points(alone['accuracy_without_it'])} points"
    )
    _say(console, f"this cut alone undone: {back}, reward {alone['reward_without_it']:+.3f}")
    _show_attributes(console, card)
    _show_reasons(console, card)
    table = _table("#group", "type", "#strength", "cut too")
    for row in card["neighbours"]:
        table.add_row(
            str(row["group"]), safe(row["type"]), f"{row['strength']:.2f}", "[red]yes" if row["cut"] else "no"
        )
    _show(console, "its strongest neighbours in the neuron graph", table)
    table = _table("input", "#activation", "#sample", "#class", "id")
    for row in samples:
        known = str(row.get("label", "-")), safe(str(row.get("id", "-")))[:12]
        table.add_row(safe(row["input"]), f"{row['activation']:.2f}", str(row["sample"]), *known)
    _show(console, "samples that excite it most (place in the fit split, own class, id)", table)


def _show_attributes(console: Console, card: Row) -> None:
    table = _table("attribute", "#value", "#layer mean", "#deviations", "#percentile")
    for row in card["attributes"]:
        figures = f"{row['value']:.3g}", f"{row['layer_mean']:.3g}", f"{row['deviations']:+.1f}"
        table.add_row(safe(row["name"]), *figures, f"{100 * row['percentile']:.0f}")
    _show(console, "where it stands out in its layer", table)


def _show_reasons(console: Console, card: Row) -> None:
    own = [(safe(r["name"]), percent(r["share"])) for r in card["because"]]
    others = [(f"group {r['group']}", percent(r["share"])) for r in card["because_of_groups"]]
    edges = [(f"{r['from']} to {r['to']}", percent(r["share"])) for r in card["because_of_edges"]]
    table = _table("own attribute", "#share", "other group", "#share", "edge", "#share")
    for i in range(max(len(own), len(others), len(edges))):
        table.add_row(*(text for column in (own, others, edges) for text in (column[i : i + 1] or [("", "")])[0]))
    _show(console, "what the agent's answer rests on (shares over all groups, and over all edges)", table)
    answer = "changes" if card["fidelity_plus"] else "stays"
    enough = "do not give it" if card["fidelity_minus"] else "give it, too"
    _note(
        console,
        f"fidelity+ {card['fidelity_plus']:.0f}: without the parts that weigh most the agent's answer {answer}. "
        f"fidelity- {card['fidelity_minus']:.0f}: these parts alone {enough}.",
    )


def safe(text: str) -> str:
    """Text out of a model file or a record, as the terminal may show it."""
    return escape(printable(text))


def percent(value: float, digits: int = 1) -> str:
    """A share 0..1 as percent; the number and its sign stay on one line."""
    return f"{100 * value:.{digits}f}\u00a0%"


def probability(value: float) -> str:
    """A probability as percent, a small one with two digits that count."""
    return f"{100 * value:.2g}\u00a0%" if 0 < value < 0.1 else percent(value, 0)


def points(value: float) -> str:
    """A difference of shares in points, with its sign."""
    return f"{100 * value:+.1f}"


def spans(numbers: Sequence[int], most: int) -> str:
    """Channel numbers as spans, such as ``0-3, 7``, cut after ``most`` letters."""
    ends: list[list[int]] = []
    for number in sorted(numbers):
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return textwrap.shorten(", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ends), most, placeholder=" ...")


def _channels(card: Row, most: int) -> str:
    word = card["kind"] if card["kind"] != "channel" else ("channel" if len(card["channels"]) == 1 else "channels")
    return f"{safe(word)} {spans(card['channels'], most)}"


def _short(digest: str) -> str:
    """First twelve hex digits of a hash."""
    return safe(digest.removeprefix("sha256:")[:12])


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False)


def _note(console: Console, text: str) -> None:
    console.print(text, style="dim", markup=False, highlight=False)


def _table(*names: str) -> Table:
    """A table without a frame; a leading ``#`` aligns a column right."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name.removeprefix("#"), justify="right" if name.startswith("#") else "left", overflow="fold")
    return table


def _show(console: Console, title: str, table: Table) -> None:
    """A table under its title, which would be folded to the table's width if it were part of it."""
    _say(console, f"\n[bold]{title}[/bold]")
    console.print(table)
