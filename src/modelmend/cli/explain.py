"""``modelmend explain``: why each neuron group was cut, from the artifacts of a run alone."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from modelmend.artifacts import MANIFEST
from modelmend.cli import cards
from modelmend.cli.cuts import Cuts, first_triggers, open_cuts, summary, trigger_name
from modelmend.errors import InputError, printable
from modelmend.rundir import make_folder

if TYPE_CHECKING:
    from torch import Tensor

    from modelmend.pruning.picture import Excited
    from modelmend.steps.stores import SampleBank

GRAPH = "graph.json"
MOST_ROWS = 24
"""Groups in the picture of samples."""


def explain_command(path: Path, group: int | None, as_json: bool, out: Path | None, console: Console) -> int:
    """Print why the groups were cut, and draw it; returns the exit code.

    Args:
        path: Run directory, or PRUNED artifact.
        group: Print the whole card of this group instead.
        as_json: Print the record instead.
        out: Folder of the pictures; by default ``explain`` in the run directory, when the overview is printed.
        console: Where to print.
    """
    cuts = open_cuts(path)
    card = None if group is None or not cuts.record["cut"] else _card(cuts, group)
    if as_json:
        console.print_json(json.dumps(summary(cuts) if card is None else card))
    elif not cuts.record["cut"]:
        cards.show_nothing(console, summary(cuts))
    elif card is not None:
        step = next(row for row in cuts.explanation["path"] if row["group"] == group)
        cards.show_card(console, card, step, _samples_of(cuts, card))
    else:
        cards.show_figures(console, summary(cuts))
        if cuts.explanation:
            cards.show_score(console, cuts.explanation)
            cards.show_cuts(console, cuts.explanation)
        else:
            cards.show_plain_cuts(console, cuts.record["cut"])
    overview = card is None and not as_json
    if cuts.explanation.get("path") and (overview or out is not None):
        _draw(cuts, out, Console(stderr=True) if as_json else console)
    return 0


def _card(cuts: Cuts, group: int) -> dict[str, Any]:
    """The card of one group; raises ``InputError`` when it has none."""
    for card in cuts.explanation.get("cards", []):
        if card["group"] == group:
            found: dict[str, Any] = card
            return found
    cut = ", ".join(str(c["index"]) for c in cuts.record["cut"])
    message = f"group {group} was not cut" if cuts.explanation else "the run drew up no evidence of its cuts"
    raise InputError(message, where=cuts.artifact.path, field="group", fix=f"these were cut: {cut}")


def _samples_of(cuts: Cuts, card: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the card's most exciting samples: clean, then with each trigger that the probe found on the suspect."""
    lists = {"clean": card["top_clean"]}
    for (family, target), index in first_triggers(cuts).items():
        lists[trigger_name(family, target)] = card["top_triggered"][index]
    bank = _bank(cuts)
    rows = []
    for name, top in lists.items():
        for item in top:
            row = {"input": name, **item}
            if bank is not None:
                at = int(_fit(bank)[item["sample"]])
                row |= {"id": bank.samples.ids[at], "label": int(bank.samples.y[at])}
            rows.append(row)
    return rows


def _bank(cuts: Cuts) -> SampleBank | None:
    """The samples that the pruning read, when they are there."""
    if (artifact := cuts.beside("samples")) is None:
        return None
    from modelmend.steps.stores import open_samples

    return open_samples(artifact.path)


def _fit(bank: SampleBank) -> Tensor:
    """Where the samples of the fit split are among all."""
    from modelmend.steps.stores import PARTS

    return (bank.part == PARTS.index("fit")).nonzero().squeeze(1)


def _draw(cuts: Cuts, out: Path | None, console: Console) -> None:
    """Write the pictures that the run has the data for; say which, and why not the others."""

    def tell(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    if importlib.util.find_spec("matplotlib") is None:
        return tell("no pictures: they need matplotlib, pip install 'modelmend[plots]'")
    if out is None:
        if cuts.run is None:
            return tell("no pictures: this artifact lies in no run directory, give --out DIR")
        out = cuts.run.path / "explain"
    from modelmend.pruning.picture import draw, draw_samples

    folder = _folder(out)
    if GRAPH in cuts.artifact.files:
        draw(cuts.artifact.json(GRAPH), cuts.explanation, folder / "graph.png")
        tell(f"the neuron graph: {folder / 'graph.png'}")
    else:
        tell("no picture of the graph: an earlier version pruned this model and kept no graph.json; repeat the run")
    rows = _excited(cuts)
    if rows:
        draw_samples(rows, folder / "samples.png")
        tell(f"samples that excite the cut groups: {folder / 'samples.png'}")
    else:
        tell("no picture of samples: the run holds no images and triggers that belong to these cuts")
    return None


def _folder(out: Path) -> Path:
    """The folder, made if it is not there; raises ``InputError`` inside of a finished artifact."""
    out = out.resolve()
    for folder in (out, *out.parents):
        if (folder / MANIFEST).is_file():
            fix = "choose another --out"
            raise InputError("a finished artifact is never written to", where=folder, field="out", fix=fix)
    return make_folder(out, "out")


def _excited(cuts: Cuts) -> list[Excited]:
    """A row a cut, largest effect first: its samples, clean and with the probe's trigger that excites it most."""
    bank, evidence = _bank(cuts), cuts.beside("evidence")
    if bank is None or evidence is None:
        return []
    from modelmend.pruning.picture import Excited
    from modelmend.steps.stores import open_evidence

    _, _, triggers = open_evidence(evidence.path)
    at = _fit(bank)
    x, y = bank.samples.x[at], bank.samples.y[at].tolist()
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        return []
    places = first_triggers(cuts)
    known = [(t, places[t.family, t.target]) for t in triggers if (t.family, t.target) in places]

    def caption(item: Mapping[str, Any]) -> str:
        return f"{item['sample']}, {y[item['sample']]}, {item['activation']:.2f}"

    rows = []
    for card in cuts.explanation["cards"][:MOST_ROWS] if known else ():
        tops = card["top_triggered"]
        trigger, place = max(known, key=lambda pair: tops[pair[1]][0]["activation"])
        shown = x[[item["sample"] for item in tops[place]]]
        pairs = zip(shown, trigger(shown), map(caption, tops[place]), strict=True)
        clean = [(x[item["sample"]], caption(item)) for item in card["top_clean"]]
        title = (
            f"group {card['group']}\n{printable(card['layer'])[-24:]}\n{trigger_name(trigger.family, trigger.target)}"
        )
        rows.append(Excited(title, clean, list(pairs)))
    return rows
