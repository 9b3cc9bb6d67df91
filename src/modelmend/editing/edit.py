"""Activation-guided editing of a suspect model: scale what the triggers excite, then repair what the scaling cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from modelmend.editing.balance import put_shift
from modelmend.editing.batchnorm import reestimate
from modelmend.editing.delta import EditResult, exact_delta, overall_norm, relative_norms
from modelmend.editing.layers import partway, put_back, snapshot, weight_layers
from modelmend.editing.quality import Kept, Pair, Quality, SelectSplit, strongest, triggered
from modelmend.editing.response import responses
from modelmend.editing.scale import Form, scale_layers
from modelmend.editing.tuning import TuneConfig, tune
from modelmend.errors import InputError
from modelmend.metrics import sample_passes
from modelmend.model.classifier import Classifier
from modelmend.probe.trigger import Trigger
from modelmend.progress import Progress, silent
from modelmend.records import DOUBTFUL, Record

SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the way from the untouched to the edited weights that are tried at the end."""
TIE = 0.03
"""Costs that differ by less are taken for the same: the first point of accuracy costs as much, and the select split knows it
no better."""
AnyKept = TypeVar("AnyKept", bound=Kept)
Reprobe = Callable[[Classifier, int], Sequence[Trigger]]
"""Finds fresh candidate triggers on an edited model; takes a seed."""


class EditConfig(Record):
    """Settings of the edit."""

    layers: tuple[int, ...] = Field(default=(1, 2, 3), description="candidates for k, the number of last weight layers")
    strengths: tuple[float, ...] = Field(default=(0.25, 0.5, 1.0, 2.0), description="candidates for s")
    forms: tuple[Form, ...] = Field(default=("channel", "pair"), description="contrast forms that may be chosen")
    bounds: tuple[float, float] = Field(default=(0.0, 1.0), description="lowest and highest factor on a weight")
    batch_norm: Literal["auto", "frozen", "edited", "re-estimated"] = "auto"
    enough: float = Field(default=0.10, ge=0, le=1, description="probe success at which no edit is needed")
    repair: TuneConfig | None = TuneConfig()
    rounds: int = Field(default=2, ge=1, description="repair steps; each later one unlearns freshly found triggers too")
    max_triggers: int = Field(default=8, ge=1)
    batch_size: int = Field(default=128, ge=1)


def edit(
    classifier: Classifier,
    fit: Any,
    reward: Any,
    select: Any,
    triggers: Sequence[Trigger],
    *,
    config: EditConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
    reprobe: Reprobe | None = None,
    reference: Classifier | None = None,
    chance: float = 1.0,
) -> EditResult:
    """Edit the last weight layers along what the triggers excite, then run the repair step.

    Every finished candidate is judged on the select split (``Quality.cost``), the untouched model among them: a scaling
    that the repair step does better without is dropped, an edit that does not pay is not made, and none is made when no
    trigger succeeds any more.

    Args:
        classifier: The suspect; not changed.
        fit: Samples or ``(x, y)``: one half of the repair split.
        reward: The other half.
        select: Samples or ``(x, y)``; only chooses among candidates.
        triggers: Probe triggers.
        config: Settings.
        seed: Of every random draw.
        progress: Called often.
        reprobe: Looks for fresh triggers between rounds; without it there is one round.
        reference: The model whose clean behaviour is to be kept, when ``classifier`` was repaired before: accuracy is
            held against it, and the repair step distils from it. ``classifier`` itself when not given.
        chance: Probability that there is a backdoor, by the probe. Under ``DOUBTFUL`` nothing is edited: a clean model has
            triggers, too, and unlearning them costs it accuracy for nothing. From there on the verdict judges them.

    Returns:
        The edited model, its exact delta and a log: ``edited``, ``reason``, ``before``, ``judged_by``, ``scaled``, ``after``,
        ``start`` (whether the scaled or the untouched weights were the better start of the repair step), ``choice``
        (form, k, s, batch norm of the scaling that was kept), ``clean_form`` (the paper's form, for comparison),
        ``candidates``, ``repair`` (rounds and epochs), ``batch_norm``, ``layers`` (relative change per tensor),
        ``relative_norm``, ``seconds``, ``passes``.

    Raises:
        InputError: a split is empty.
    """
    config = config or EditConfig()
    started, spent = time.monotonic(), sample_passes()
    repair_split, select_pair = join(fit, reward), as_pair(select, "select")
    triggers = strongest([classifier], triggers, as_pair(fit, "fit"), config.max_triggers)
    teacher = reference or classifier
    judging: dict[str, Any] = {"reference": teacher, "chance": chance, "repair": repair_split}
    split = SelectSplit(select_pair, triggers, config.batch_size, **judging)
    as_is, before = starting_point(classifier, teacher, split)
    log: dict[str, Any] = {"method": "activation-guided edit", "before": as_is.log(before), "batch_norm": "frozen"}
    log["judged_by"] = split.log()
    result = classifier.clone().frozen()
    if chance < DOUBTFUL or before.worst <= config.enough:
        log |= {"edited": False, "reason": _unneeded(before, config, chance), "after": as_is.log(before)}
        return _finish(classifier, result, log, started, spent)

    result, scaled, found = _choose_scaling(
        classifier, repair_split[0], triggers, split, as_is=as_is, before=before, config=config, progress=progress
    )
    log |= found | {"scaled": scaled.log(before)}
    final, rounds = scaled, []
    starts = {"scaled": result} if found["choice"] else {}
    starts["untouched"] = classifier.clone().frozen()
    known = triggers
    for turn in range(config.rounds if config.repair and config.repair.epochs else 0):
        if turn:
            if reprobe is None:
                break
            fresh = list(reprobe(result, seed + turn))
            known = known + fresh
            split = SelectSplit(select_pair, known, config.batch_size, **judging)
            (as_is, before), final = starting_point(classifier, teacher, split), split.measure(result)
            log |= {"before": as_is.log(before), "judged_by": split.log()}
            if not fresh or final.worst <= config.enough:
                break
            starts = {f"round {turn}": result}
        assert config.repair is not None
        finished: dict[str, Quality] = {}
        for name, start in starts.items():
            finished[name], rows = tune(
                start, teacher, repair_split, split, before=before,
                config=config.repair, seed=seed + turn, progress=progress, title=f"repair step {turn + 1}, {name}",
            )  # fmt: skip
            rounds.append({"round": turn + 1, "start": name, "triggers": len(known), "epochs": rows})
        best = min(finished, key=lambda name: (finished[name].cost(before), finished[name].loss))
        result, final = starts[best], finished[best]
        if not turn:
            log["start"] = best
            log["choice"] = found["choice"] if best == "scaled" else None
    log["repair"] = rounds
    result, final, log["share"] = part_of_the_way(classifier, result, split, as_is=as_is, before=before, quality=final)
    result, final, log["batch_norm"] = _choose_statistics(
        result, repair_split[0], split, before=before, quality=final, log=log, config=config
    )
    if not final.cost(before) < as_is.cost(before):
        log |= {
            "edited": False,
            "reason": "no candidate was better than the model as it is",
            "after": as_is.log(before),
        }
        log["batch_norm"] = "frozen"
        return _finish(classifier, classifier.clone().frozen(), log, started, spent)
    reason = f"worst probe success {before.worst:.2f} -> {final.worst:.2f} on the select split"
    log |= {"edited": True, "reason": reason, "after": final.log(before)}
    return _finish(classifier, result, log, started, spent)


def as_pair(samples: Any, name: str) -> Pair:
    """``(x, y)`` of ``Samples`` or of a pair. Raises ``InputError`` when it is empty."""
    x, y = (samples.x, samples.y) if hasattr(samples, "x") else samples
    if not len(x):
        raise InputError("the split has no samples", field=name, fix="give more clean samples")
    return x, y


def join(fit: Any, reward: Any) -> Pair:
    """Both halves of the repair split."""
    (x, y), (x2, y2) = as_pair(fit, "fit"), as_pair(reward, "reward")
    return torch.cat([x, x2]), torch.cat([y, y2])


def starting_point(classifier: Classifier, teacher: Classifier, split: SelectSplit) -> tuple[Quality, Quality]:
    """What a change starts from, and what losses are held against.

    The latter is as accurate as the better of model and teacher, in all and in each class, so that no stage has a budget of its
    own; the model as it is pays for what it has lost already.
    """
    start, own = split.measure(classifier), split.measure(teacher)
    classes = tuple(_higher(a, b) for a, b in zip(start.classes, own.classes, strict=True))
    return start, replace(_higher(start, own), classes=classes)


def _higher(start: AnyKept, own: Kept) -> AnyKept:
    return replace(start, accuracy=max(start.accuracy, own.accuracy), belief=max(start.belief, own.belief))


def _unneeded(before: Quality, config: EditConfig, chance: float) -> str:
    if chance < DOUBTFUL:
        return f"no edit: the probe sees no backdoor (probability {chance:.3f}), so its triggers are natural ones"
    if not before.success:
        return "no edit needed: there are no candidate triggers"
    return f"no edit needed: no trigger succeeds more often than {config.enough:.2f} (worst {before.worst:.2f})"


def _choose_scaling(
    classifier: Classifier,
    x: Tensor,
    triggers: Sequence[Trigger],
    split: SelectSplit,
    *,
    as_is: Quality,
    before: Quality,
    config: EditConfig,
    progress: Progress,
) -> tuple[Classifier, Quality, dict[str, Any]]:
    """Judge every (form, k, s, batch norm) and the identity; give the best as a model, its quality and the log."""
    layers = weight_layers(classifier.graph)
    depths = sorted({min(k, len(layers)) for k in config.layers if k > 0 and layers})
    if not depths:
        return classifier.clone().frozen(), as_is, {"choice": None, "candidates": []}
    last = layers[-depths[-1] :]
    weights = as_is.success
    hits = [(weight, triggered(trigger, x)) for weight, trigger in zip(weights, triggers, strict=True)]
    response = responses(classifier, last, x, hits, config.batch_size)
    measure = split.measurer(classifier, last[0].node)
    result = classifier.clone().frozen()
    untouched = snapshot(result.graph)

    def scaled(choice: dict[str, Any]) -> Classifier:
        put_back(result.graph, untouched)
        form, s, norm = choice["form"], choice["s"], choice["batch_norm"]
        chosen = last[-choice["k"] :]
        scale_layers(result, chosen, response, form=form, s=s, bounds=config.bounds, batch_norm=norm)
        return result

    norms: tuple[Any, ...] = ("frozen",) if config.batch_norm in ("frozen", "re-estimated") else ("edited",)
    if config.batch_norm == "auto":
        norms = ("frozen", "edited")
    grid = list(itertools.product((*config.forms, "clean"), depths, config.strengths, norms))
    rows: list[dict[str, Any]] = []
    best: tuple[float, dict[str, Any] | None, Quality] = (as_is.cost(before), None, as_is)
    for i, (form, k, s, norm) in enumerate(grid):
        if form == "pair" and norm == "edited" and len(norms) > 1:
            continue  # a pair has no factor that a batch norm could carry
        choice = {"form": form, "k": k, "s": s, "batch_norm": norm}
        quality = measure(scaled(choice))
        rows.append(choice | quality.log(before))
        if form in config.forms and quality.cost(before) < best[0]:
            best = (quality.cost(before), choice, quality)
        progress("edit candidates", i + 1, len(grid))
    plain = min((row for row in rows if row["form"] == "clean"), key=lambda row: row["cost"])
    found = {"choice": best[1], "candidates": rows, "clean_form": plain}
    if best[1] is None:
        put_back(result.graph, untouched)
    else:
        scaled(best[1])
    return result, best[2], found


def part_of_the_way(
    start: Classifier,
    edited: Classifier,
    split: SelectSplit,
    *,
    as_is: Quality,
    before: Quality,
    quality: Quality,
) -> tuple[Classifier, Quality, float]:
    """Weights between the untouched and the edited model: the share of the way that costs least on the select split.

    ``W(share) = (1 - share) W_start + share W_edited``, the interpolation of WiSE-FT (arXiv 2109.01903); a backdoor
    often breaks well before the end of the way, and clean behaviour is lost all along it. Of shares that cost about the
    same it is the one that leaves least of the triggers: the attacker's own is not among them and may outlive them.
    """
    found = [(quality.cost(before), quality, 1.0, edited)]
    begin, end = start.graph.state_dict(), edited.graph.state_dict()
    for share in SHARES:
        between = edited.clone().frozen()
        between.graph.load_state_dict(partway(begin, end, share))
        here, shift = split.balanced(between, before)
        put_shift(between, shift)
        found.append((here.cost(before), here, share, between))
    cheapest = min(found, key=lambda row: (row[0], row[1].harm))
    tied = [row for row in found if row[0] <= cheapest[0] + TIE and row[0] < as_is.cost(before)]
    _, _, share, model = min(tied, key=lambda row: (row[1].harm, row[0]), default=cheapest)
    return model, split.measure(model), share


def _choose_statistics(
    result: Classifier,
    x: Tensor,
    split: SelectSplit,
    *,
    before: Quality,
    quality: Quality,
    log: dict[str, Any],
    config: EditConfig,
) -> tuple[Classifier, Quality, str]:
    """Batch norm: keep the statistics, or re-estimate them where that was asked for or is better."""
    choice = log.get("choice") or {}
    carried = "edited" if choice.get("batch_norm") == "edited" else "frozen"
    if config.batch_norm not in ("auto", "re-estimated"):
        return result, quality, carried
    candidate = result.clone().frozen()
    if not reestimate(candidate, x, max(2, min(len(x), 256))):
        return result, quality, "none"
    _, shift = split.balanced(candidate, before)
    put_shift(candidate, shift)
    fresh = split.measure(candidate)
    log["re-estimated"] = fresh.log()
    if config.batch_norm == "re-estimated" or fresh.cost(before) < quality.cost(before):
        return candidate, fresh, "re-estimated"
    return result, quality, carried


def _finish(
    classifier: Classifier, result: Classifier, log: dict[str, Any], started: float, spent: float
) -> EditResult:
    norms = relative_norms(classifier.graph, result.graph)
    log["layers"] = {name: round(norm, 6) for name, norm in norms.items()}
    log["relative_norm"] = round(overall_norm(classifier.graph, result.graph), 6)
    log["seconds"] = round(time.monotonic() - started, 3)
    log["passes"] = sample_passes() - spent
    return EditResult(result, exact_delta(classifier.graph, result.graph), log)
