"""Does the gate's verdict agree with the truth: ``python -m benchmarks.verdicts --data DIR --suite small``.

Each model goes through the whole path, as a user would run it (``fallback``: the fine-tuning that a first verdict may ask
for), and in weakened forms of it on purpose: no repair at all, pruning without the edit or half of its cuts alone, the
edit without any cut or cut short, the way to the repaired weights gone half.
The verdict is set beside the true ASR and accuracy on half B. A *bad* case has a true ASR over 10 %; passing it is a
false pass. A *good* one has a true ASR under 3 % and lost less than 2 points; blocking it is a false block. One JSON
file a case; resumable.

Four hundred samples of the gate split say little about two points of accuracy. ``--more N`` asks what the same policy
says where accuracy, of all and of each class, is measured on N further samples, too. The product's ``--measure-samples``
does that and gives them to the residuals and the audit, as well; here these stay as they are.

``--reactivate`` tries to wake the backdoor of finished whole repairs: re-tuning with five triggered images, and a
perturbed query, beside a clean model of the same recipe.

Evidence and repaired models stay in ``--work`` and are used again. After a change to the gate's rules the same call judges
finished cases again; after one to what is measured, name another ``--out``, and only measuring and judging is repeated;
after one to the repair, name another ``--work``, too.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from scipy.stats import spearmanr

from benchmarks.cases import Case, case_options, clean_references, draw_budget, read_cases, wanted
from benchmarks.measure import class_accuracy, final_measurement
from benchmarks.reactivation import woken
from benchmarks.table import interval
from modelmend import steps
from modelmend.artifacts import MANIFEST, SCHEMAS, Artifact, read_artifact, write_json, writing
from modelmend.editing import edit as editing
from modelmend.editing.tuning import TuneConfig
from modelmend.errors import InputError
from modelmend.gate.judge import judge
from modelmend.gate.policy import load_policy
from modelmend.metrics import clopper_pearson
from modelmend.model.classifier import Classifier
from modelmend.model.pt2 import write_pt2
from modelmend.probe.accused import against
from modelmend.probe.estimate import SEEN, weighted_success
from modelmend.pruning.onp import PruningConfig, cut_clone, nodes
from modelmend.records import Decision, Evidence, PrivacyReport, Scorecard
from modelmend.redteam.sealed import PURPOSE
from modelmend.samples.duplicates import unseen
from modelmend.steps.gating import decide
from modelmend.steps.measuring import accuracy_kept
from modelmend.steps.stores import (
    SampleBank,
    open_classifier,
    open_evidence,
    open_samples,
    open_suspect,
    save_classifier,
)

BAD, GOOD, LOST = 0.10, 0.03, 0.02
LEAST_CUTS = {"pruned": 1, "half-cut": 2}
VARIANTS = ("whole", "fallback", "half-way", "pruned", "half-cut", "edited", "shallow", "untouched")


def run_case(
    case: Case, out: Path, work: Path, *, budget: int, seed: int, variants: Sequence[str], console: Console
) -> None:
    """All variants of one model; finished ones are skipped, and so is what is finished of the others."""
    wanted = [v for v in variants if not (out / f"{case.name}-s{seed}-{v}.json").exists()]
    if not wanted:
        return
    home = work / f"{case.name}-{budget}-s{seed}"
    made = _prepare(case, home, budget, seed)
    for variant in wanted:
        started = time.process_time()
        if variant == "fallback" and not _asked_for(out / f"{case.name}-s{seed}-whole.json"):
            continue
        if variant in LEAST_CUTS and _cuts(made, seed) < LEAST_CUTS[variant]:
            continue  # the same model as untouched
        row = _judge(case, home, made, variant, seed)
        row |= {"budget": budget, "seed": seed, "cpu_seconds": round(time.process_time() - started, 1)}
        keep(out / f"{case.name}-s{seed}-{variant}.json", row)
        console.print(
            f"{case.name} {variant}: ASR {_percent(row['asr'])}, ACC {row['acc']:.1%} "
            f"(lost {row['lost']:.1%}), {row['verdict']}",
            highlight=False,
        )


def _asked_for(whole: Path) -> bool:
    """Whether the first verdict on the whole repair asks for the fallback."""
    return whole.is_file() and json.loads(whole.read_text())["verdict"] == "fallback"


def _once(path: str, step: Callable[[], Any]) -> None:
    """Run a step unless its artifact is here, whole."""
    if not (Path(path) / MANIFEST).is_file():
        step()


def _prepare(case: Case, home: Path, budget: int, seed: int) -> dict[str, str]:
    """Import, validate, probe: the same for all variants."""
    roles = ("suspect", "samples", "evidence", "activations", "pruned", "uncut")
    made = {role: str(home / role) for role in roles} | {"repaired": str(home / "whole-edited")}
    home.mkdir(parents=True, exist_ok=True)
    if not (Path(made["samples"]) / MANIFEST).is_file():
        write_pt2(case.classifier().graph, home / "suspect.pt2", case.input_shape)
        drawn = draw_budget(case.pool, budget, seed)
        np.savez(home / "samples.npz", x=drawn.x.numpy(), y=drawn.y.numpy())
        told = case.recipe.preprocessing
        steps.import_model(
            str(home / "suspect.pt2"), made["suspect"], input_shape=list(case.input_shape), mean=list(told.mean),
            std=list(told.std),
        )  # fmt: skip
        steps.validate_samples(made["suspect"], str(home / "samples.npz"), made["samples"], seed=seed)
    parts = (made["suspect"], made["samples"], made["evidence"])
    _once(made["evidence"], lambda: steps.probe_backdoor(*parts, seed=seed))
    return made


def _repair(made: dict[str, str], variant: str, seed: int) -> str:
    """Make what the variant starts from; returns the record of what was pruned, which is nothing in weakened repairs."""
    parts = (made["suspect"], made["samples"], made["evidence"])
    if variant in ("whole", "fallback", "half-way", "pruned", "half-cut"):
        _once(made["activations"], lambda: steps.extract_activations(*parts, made["activations"]))
        _once(made["pruned"], lambda: steps.prune_neurons(*parts, made["activations"], made["pruned"], seed=seed))
    if variant in ("whole", "fallback", "half-way"):
        _once(made["repaired"], lambda: _whole(made, made["repaired"], seed))
    if variant in ("whole", "fallback", "pruned"):
        return made["pruned"]
    if not (Path(made["uncut"]) / MANIFEST).is_file():
        source = open_suspect(made["suspect"])
        with writing(made["uncut"], SCHEMAS["pruned"], producer="prune_neurons", seed=seed) as folder:
            content = save_classifier(source.classifier, folder, source.info)
            write_json(folder / "pruning.json", {"cut": [], "content_hash": content})
    return made["uncut"]


def _cuts(made: dict[str, str], seed: int) -> int:
    """Groups that pruning cut."""
    _repair(made, "pruned", seed)
    return len(read_artifact(made["pruned"], SCHEMAS["pruned"]).json("pruning.json")["cut"])


def _judge(case: Case, home: Path, made: dict[str, str], variant: str, seed: int) -> dict[str, Any]:
    """Edit in the variant's way, measure, audit, judge; then, and only then, look at the truth."""
    edited, card, privacy, decision = (str(home / f"{variant}-{r}") for r in ("edited", "card", "privacy", "decision"))
    parts, pruned = (made["suspect"], made["samples"]), _repair(made, variant, seed)
    _once(edited, lambda: EDITS[variant](made, edited, seed))
    _wider(home, variant).unlink(missing_ok=True)  # it speaks of the scorecard before
    looks = 2 if variant == "fallback" else 1
    steps.measure_repair(*parts, made["evidence"], pruned, edited, card, seed=seed, looks=looks)
    _once(privacy, lambda: steps.audit_privacy(*parts, edited, privacy, seed=seed, looks=looks))
    steps.gate_repair(made["samples"], card, privacy, decision, seed=seed)
    judged = Decision.read(read_artifact(decision, SCHEMAS["decision"]).file("decision.json"))
    measured = Scorecard.read(read_artifact(card, SCHEMAS["scorecard"]).file("scorecard.json"))
    found = Evidence.read(read_artifact(made["evidence"], SCHEMAS["evidence"]).file("evidence.json"))
    source = open_suspect(made["suspect"])
    repaired = open_classifier(read_artifact(edited, SCHEMAS["edited"]), source.info)
    truth, before = final_measurement(case, repaired), final_measurement(case, source.classifier)
    classes = [class_accuracy(case, model) for model in (source.classifier, repaired)]
    attack = None if case.sealed is None else case.sealed.open(purpose=PURPOSE)
    return {
        "model": case.name,
        "attack": case.recipe.attack,
        "infected": case.infected,
        "variant": variant,
        **_verdict(judged),
        "acc": truth.acc,
        "lost": before.acc - truth.acc,
        "class_lost": max(was - now for was, now in zip(*classes, strict=True)),
        "asr": truth.asr,
        "asr_before": before.asr,
        "target": getattr(attack, "target_class", None),
        "suspects": list(found.suspects),
        "probability": found.probability,
        "groups_cut": measured.groups_cut,
        "residuals": [
            [
                row.family,
                row.role,
                row.target,
                row.before.value,
                row.after.value,
                row.after.high,
                row.floor and row.floor.high,
            ]
            for row in measured.residuals
        ],
    }


def _whole(made: dict[str, str], edited: str, seed: int) -> None:
    steps.edit_weights(made["suspect"], made["samples"], made["evidence"], made["pruned"], edited, seed=seed)


def _fallback(made: dict[str, str], edited: str, seed: int) -> None:
    steps.fine_tune(made["suspect"], made["samples"], made["evidence"], made["repaired"], edited, seed=seed)


def _edited(made: dict[str, str], edited: str, seed: int) -> None:
    _whole(made | {"pruned": made["uncut"]}, edited, seed)


def _pruned(made: dict[str, str], edited: str, seed: int) -> None:
    source, pruned = open_suspect(made["suspect"]), read_artifact(made["pruned"], SCHEMAS["pruned"])
    _weakened(made, edited, seed, open_classifier(pruned, source.info))


def _half_cut(made: dict[str, str], edited: str, seed: int) -> None:
    source = open_suspect(made["suspect"])
    found = read_artifact(made["pruned"], SCHEMAS["pruned"]).json("pruning.json")
    groups = nodes(source.classifier, source.info.input_shape, PruningConfig(branches=found["branches"]))
    first = [step["group"] for step in found["explanation"]["path"][: len(found["cut"]) // 2]]  # in the agent's order
    _weakened(made, edited, seed, cut_clone(source.classifier, groups, first))


def _untouched(made: dict[str, str], edited: str, seed: int) -> None:
    _weakened(made, edited, seed, open_suspect(made["suspect"]).classifier.clone().frozen())


def _shallow(made: dict[str, str], edited: str, seed: int) -> None:
    bank = open_samples(made["samples"])
    _, found, triggers = open_evidence(made["evidence"])
    parts = (bank["fit"], bank["reward"], bank["select"])
    config = editing.EditConfig(repair=TuneConfig(epochs=1), rounds=1)
    model = open_suspect(made["suspect"]).classifier.clone().frozen()
    result = editing.edit(model, *parts, against(triggers, found.suspects[:1]), config=config, seed=seed)
    _weakened(made, edited, seed, result.classifier)


def _half_way(made: dict[str, str], edited: str, seed: int) -> None:
    source = open_suspect(made["suspect"])
    model = source.classifier.clone().frozen()
    repaired = open_classifier(read_artifact(made["repaired"], SCHEMAS["edited"]), source.info)
    start, end = model.graph.state_dict(), repaired.graph.state_dict()
    model.graph.load_state_dict(
        {k: torch.lerp(v, end[k], 0.5) if v.is_floating_point() else v for k, v in start.items()}
    )
    _weakened(made, edited, seed, model)


def _weakened(made: dict[str, str], edited: str, seed: int, model: Classifier) -> None:
    source = open_suspect(made["suspect"])
    inputs = {
        "suspect": source.artifact,
        "samples": open_samples(made["samples"]).artifact,
        "evidence": open_evidence(made["evidence"])[0],
    }
    with writing(edited, SCHEMAS["edited"], producer="edit_weights", inputs=inputs, seed=seed) as folder:
        content = save_classifier(model, folder, source.info)
        log = {"method": "weakened", "relative_norm": 0.0, "batch_norm": "frozen"}
        write_json(folder / "edit.json", {**log, "content_hash": content})


def wake(case: Case, home: Path, reference: Case | None, row: dict[str, Any], seed: int) -> dict[str, Any]:
    """``reactivation`` of a finished whole repair, as ``woken`` has it; nothing without a clean model of the recipe."""
    if reference is None or row["variant"] != "whole":
        return {}
    source = open_suspect(str(home / "suspect"))
    repaired = open_classifier(read_artifact(str(home / "whole-edited"), SCHEMAS["edited"]), source.info)
    return {"reactivation": woken(case, reference, repaired, row["asr_before"], seed)}


def judge_again(home: Path, row: dict[str, Any]) -> dict[str, Any]:
    """A finished case with the verdict of the present gate, from the evidence that it left in ``home``.

    Raises:
        InputError: The evidence there is of another run than the row.
    """
    bank, measured, audited = _evidence(home, row["variant"])
    if row.get("card", measured.digest) != measured.digest:
        raise InputError(
            "this scorecard is not the one that the row is about",
            where=str(measured.path),
            fix="give the --out and --work of one run, or delete the row's file",
        )
    row = row | {"card": measured.digest} | _verdict(decide(load_policy(None), bank, measured, audited, seed=0))
    wider = _wider(home, row["variant"])
    if not wider.is_file():
        return {name: value for name, value in row.items() if not name.endswith("_more") and name != "more"}
    card, report = Scorecard.read(wider), PrivacyReport.read(audited.file("privacy.json"))
    again = judge(load_policy(None), card, report, samples_hash=bank.hash, seed=0)
    told = _verdict(again)
    more = {"verdict_more": told["verdict"], "blocking_more": told["blocking"], "lost_more": told["lost_gate"]}
    return row | more | {"more": card.gate_samples - len(bank["gate"][1])}


def _wider(home: Path, variant: str) -> Path:
    """The scorecard of ``measure_more``."""
    return home / f"{variant}-card-more.json"


def _verdict(decision: Decision) -> dict[str, Any]:
    drop = next((check.value for check in decision.checks if check.name == "accuracy.drop"), None)
    blocking = [check.name for check in decision.checks if check.blocks]
    return {"verdict": decision.verdict, "blocking": blocking, "lost_gate": drop}


def _evidence(home: Path, variant: str) -> tuple[SampleBank, Artifact, Artifact]:
    card, privacy = (home / f"{variant}-{role}" for role in ("card", "privacy"))
    return (
        open_samples(str(home / "samples")),
        read_artifact(str(card), SCHEMAS["scorecard"]),
        read_artifact(str(privacy), SCHEMAS["privacy"]),
    )


def measure_more(case: Case, home: Path, variants: Sequence[str], more: int) -> None:
    """Measure finished cases' accuracy on further samples of the pool, too, and keep that scorecard beside their own.

    Args:
        case: The model.
        home: Its folder in ``--work``.
        variants: Finished there; those that were measured so before are left as they are.
        more: Further samples; none that nearly equals one of the budget.

    Raises:
        InputError: the pool has too few.
    """
    source, bank = open_suspect(str(home / "suspect")), open_samples(str(home / "samples"))
    x, y = bank["gate"]
    wanted = [v for v in variants if not _measured(_wider(home, v), len(y) + more)]
    if not wanted:
        return
    fresh = unseen(bank.samples, case.pool)
    if len(fresh) < more:
        raise InputError(f"the pool has {len(fresh)} further samples", field="more", fix="ask for fewer")
    index = fresh[torch.randperm(len(fresh), generator=torch.Generator().manual_seed(0))[:more]]
    x, y = torch.cat([x, case.pool.x[index]]), torch.cat([y, case.pool.y[index]])
    for variant in wanted:
        _, measured, _ = _evidence(home, variant)
        repaired = open_classifier(read_artifact(str(home / f"{variant}-edited"), SCHEMAS["edited"]), source.info)
        card = Scorecard.read(measured.file("scorecard.json"))
        card.model_copy(update=accuracy_kept(source.classifier, repaired, x, y)).write(_wider(home, variant))


def _measured(path: Path, samples: int) -> bool:
    return path.is_file() and Scorecard.read(path).gate_samples == samples


def keep(path: Path, row: dict[str, Any]) -> None:
    """Write a case's file whole or not at all; not where nothing changed."""
    if path.is_file() and json.loads(path.read_text()) == row:
        return
    part = path.with_suffix(".part")
    write_json(part, row)
    part.replace(path)


EDITS: dict[str, Callable[[dict[str, str], str, int], None]] = {
    "whole": _whole,
    "fallback": _fallback,
    "half-way": _half_way,
    "pruned": _pruned,
    "half-cut": _half_cut,
    "edited": _edited,
    "shallow": _shallow,
    "untouched": _untouched,
}


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: counts of agreement with exact intervals, each repaired model once, then every case."""
    every, rows = rows, distinct(rows)
    bad = [r for r in rows if r["infected"] and r["asr"] is not None and r["asr"] > BAD]
    good = [r for r in rows if (r["asr"] or 0.0) < GOOD and r["lost"] < LOST and (r["infected"] or r["asr"] is None)]
    seen = [r for r in bad if r["probability"] >= 0.5]
    lines = ["| question | cases | models | count | rate | 95 % interval |", "|---|---|---|---|---|---|"]
    checked = [r for r in bad if "verdict_more" in r]
    for title, cases, wrong in (
        ("false pass", bad, _passes),
        ("false pass, accuracy on more samples", checked, lambda r: not _stays_blocked(r)),
        ("of those in which the probe had found a backdoor", seen, _passes),
        ("no check of the backdoor blocks a bad one", bad, lambda r: not _caught(r)),
        ("false block", good, lambda r: not _passes(r)),
        ("false block, accuracy on more samples", [r for r in good if "verdict_more" in r], _stays_blocked),
        ("by a check of the backdoor", good, _caught),
    ):
        if not cases and title.endswith("more samples"):
            continue
        count = sum(map(wrong, cases))
        low, high = clopper_pearson(count, len(cases)) if cases else (0.0, 1.0)
        models = len({r["model"] for r in cases})
        rate = f"{count / len(cases):.0%}" if cases else "-"
        lines.append(f"| {title} | {len(cases)} | {models} | {count} | {rate} | {low:.0%} .. {high:.0%} |")
    lines.append("")
    for title, guess in (("estimated attack success", estimated), ("largest residual", largest)):
        found = correlation(rows, guess)
        if found is not None:
            value, low, high, count = found
            lines.append(
                f"Rank correlation of the {title} with the true ASR: {value:.2f} "
                f"({low:.2f} .. {high:.2f}, models drawn anew) over {count} cases.\n"
            )
    lines += repairs(every)
    waking = reactivation_table([r for r in rows if r.get("reactivation")])
    lines += ["", *waking] if waking else []
    heads = "| model | variant | probability | ASR before | ASR | ACC | lost | by a class | verdict | blocked by |"
    lines += ["", heads, "|" + "---|" * 10]
    for r in sorted(every, key=lambda r: (r["model"], r["variant"])):
        lines.append(
            f"| {r['model']} | {r['variant']} | {r['probability']:.2f} | {_percent(r['asr_before'])} | {_percent(r['asr'])} "
            f"| {r['acc']:.1%} | {r['lost']:.1%} | {_percent(r.get('class_lost'))} | {r['verdict']} | {', '.join(r['blocking'][:3])} |"
        )
    return "\n".join(lines) + "\n"


def repairs(rows: Sequence[dict[str, Any]]) -> list[str]:
    """What whole repairs of infected models leave and cost, at the first verdict and after the fallback; no line without one."""

    def of(variant: str) -> dict[tuple[Any, ...], dict[str, Any]]:
        return {
            (r["model"], r.get("seed")): r
            for r in rows
            if r["variant"] == variant and r["infected"] and r["asr"] is not None
        }

    first = of("whole")
    again = {key: r for key, r in of("fallback").items() if key in first}
    lines = [f"Whole repairs, first verdict: {_outcome(list(first.values()))}\n"] if first else []
    if again:
        lines.append(f"After the fallback, run on {len(again)}: {_outcome(list((first | again).values()))}\n")
    return lines


def _outcome(rows: Sequence[dict[str, Any]]) -> str:
    left, lost, before = (np.array([r[name] for r in rows]) for name in ("asr", "lost", "asr_before"))
    passed = [r["asr"] for r in rows if _passes(r)]
    return (
        f"{len(rows)} infected models, ASR {before.mean():.1%} -> {left.mean():.1%} on average, median {np.median(left):.1%}, "
        f"worst {left.max():.1%}; {lost.mean():.1%} of accuracy lost, at most {lost.max():.1%}; {len(passed)} pass"
        + (f", with an ASR of at most {max(passed):.1%}." if passed else ".")
    )


def distinct(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without those of a variant that left the same model as another: the same accuracy and ASR on half B."""
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for r in sorted(rows, key=lambda r: VARIANTS.index(r["variant"])):
        first.setdefault((r["model"], r.get("seed"), r["acc"], r["asr"]), r)
    return list(first.values())


def reactivation_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Markdown lines: success of both ways to wake the backdoors, mean over models with a 95 % bootstrap interval."""
    rows = [r for r in rows if r["infected"]]
    if not rows:
        return []
    count = len({r["model"] for r in rows})
    lines = [
        f"Waking whole repairs of {count} models:",
        "",
        "| way | ASR | excess over a clean model |",
        "|---|---|---|",
    ]
    for way in ("retuned", "queried"):
        cells = []
        for name in (way, f"{way}_excess"):
            values: dict[str, list[float]] = {}
            for r in rows:
                if r["reactivation"][name] is not None:
                    values.setdefault(r["model"], []).append(r["reactivation"][name])
            mean, low, high = interval(values) if values else (math.nan,) * 3
            cells.append(f"{mean:.0%} ({low:.0%} .. {high:.0%}), {len(values)} models")
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return lines


def _passes(row: dict[str, Any]) -> bool:
    return bool(row["verdict"] == "pass")


def _stays_blocked(row: dict[str, Any]) -> bool:
    return bool(row["verdict_more"] != "pass")


def _caught(row: dict[str, Any]) -> bool:
    return any(name.startswith("backdoor") for name in row["blocking"])


def estimated(row: dict[str, Any]) -> float | None:
    """The scorecard's estimate of the attack success left, from a case's residuals."""
    if not row.get("suspects"):
        return None
    of = [r for r in row["residuals"] if r[2] == row["suspects"][0] and None not in (r[3], r[4])]
    return weighted_success([(r[3], r[4]) for r in of if r[3] >= SEEN])


def largest(row: dict[str, Any]) -> float | None:
    """The largest residual of any family and class."""
    return max((r[4] for r in row["residuals"] if r[4] is not None), default=None)


def correlation(
    rows: Sequence[dict[str, Any]],
    guess: Callable[[dict[str, Any]], float | None] = largest,
    draws: int = 1000,
) -> tuple[float, float, float, int] | None:
    """Spearman's correlation of a figure of each case with its true ASR; ``None`` under three different cases.

    Returns:
        The value, the ends of its 95 % interval by a bootstrap over models, the number of cases.
    """
    cases = [
        (r["model"], r["asr"], value)
        for r in rows
        if r["infected"] and r["asr"] is not None and r.get("residuals") and (value := guess(r)) is not None
    ]
    by_model: dict[str, list[tuple[float, float]]] = {}
    for model, truth, residual in cases:
        by_model.setdefault(model, []).append((truth, residual))

    def rank(pairs: Sequence[tuple[float, float]]) -> float:
        truth, residual = np.array(pairs).T
        return float(spearmanr(truth, residual).statistic) if np.ptp(truth) > 0 and np.ptp(residual) > 0 else math.nan

    if len(cases) < 3 or math.isnan(whole := rank([pair for pairs in by_model.values() for pair in pairs])):
        return None
    generator, models = np.random.default_rng(0), list(by_model)
    drawn = [
        rank([pair for i in generator.integers(len(models), size=len(models)) for pair in by_model[models[i]]])
        for _ in range(draws)
    ]
    low, high = np.nanquantile(drawn, (0.025, 0.975))
    return whole, float(low), float(high), len(cases)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def main() -> None:
    """Run what is missing, then print the table of everything in the output folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    case_options(parser, suite="smoke", budget=700)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("verdicts"))
    parser.add_argument("--work", type=Path, default=Path("verdicts/work"), help="evidence and repaired models")
    parser.add_argument("--more", type=int, default=0, help="further samples for the accuracy, in a second judgement")
    parser.add_argument("--reactivate", action="store_true", help="try to wake what whole repairs have put to sleep")
    parser.add_argument("--table", action="store_true", help="run no case, only judge the finished ones and print")
    told = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    told.out.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True)
    cases = [] if told.table else read_cases(told.suite, told.data, told.zoo)
    references = clean_references(cases)
    for case in cases:
        if wanted(case, told.only):
            chosen = told.variants.split(",")
            run_case(case, told.out, told.work, budget=told.budget, seed=told.seed, variants=chosen, console=console)
            reference = references.get((case.recipe.dataset, case.recipe.arch))
            home = told.work / f"{case.name}-{told.budget}-s{told.seed}"
            read = {path: json.loads(path.read_text()) for path in told.out.glob(f"{case.name}-s{told.seed}-*.json")}
            found = {path: row for path, row in read.items() if row["budget"] == told.budget}
            if told.more:
                measure_more(case, home, [row["variant"] for row in found.values()], told.more)
            for path, row in found.items() if told.reactivate else ():
                if "reactivation" not in row:
                    keep(path, row | wake(case, home, reference, row, told.seed))
    rows = []
    for path in sorted(told.out.glob("*-s*-*.json")):
        row = json.loads(path.read_text())
        home = told.work / f"{row['model']}-{row['budget']}-s{row['seed']}"
        if (home / f"{row['variant']}-card" / MANIFEST).is_file():
            keep(path, row := judge_again(home, row))
        rows.append(row)
    (told.out / "table.md").write_text(summary(rows), encoding="utf-8")
    console.print(summary(rows), markup=False)


if __name__ == "__main__":
    main()
