"""Does the probe find backdoors: ``python -m benchmarks.probe --data DIR --zoo DIR --out DIR --groups small``.

Every model is probed once, as the product does it; each model is one file in the output folder, so a run can be
stopped and started again. Detection is then worked out from those files, for any set of families and with the shipped
calibration or, with ``--fitted DIR`` (findings on other models), with one that has not seen the attack at hand.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.cases import Case, _from_zoo, draw_budget
from modelmend.artifacts import write_json
from modelmend.probe.calibration import features, probability
from modelmend.probe.choice import KEPT, USED
from modelmend.probe.run import probe
from modelmend.probe.score import suspicion
from modelmend.probe.witnesses import NOISES
from modelmend.records import ClassEvidence, Evidence
from modelmend.redteam.sealed import PURPOSE
from modelmend.redteam.store import read_records
from modelmend.samples.split import split

_LOG = logging.getLogger("benchmarks.probe")
BUDGET = 1000
"""Clean samples that the defender has; a fifth fits triggers, a fifth is held out for their success."""
TRANSFERS = 0.6
"""A candidate trigger transfers if it flips this share of held-out samples."""
ALL = (*USED, KEPT, *NOISES)
"""Families whose evidence counts."""


@dataclass(frozen=True)
class Finding:
    """What the probe found on one model, with what is true of it."""

    name: str
    group: str
    attack: str | None
    infected: bool
    asr: float | None
    target: int | None
    rows: tuple[ClassEvidence, ...]
    triggers: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    passes: float = 0.0

    def of(self, families: Sequence[str]) -> tuple[ClassEvidence, ...]:
        """The rows of these families."""
        return tuple(row for row in self.rows if row.family in families)

    @property
    def counts(self) -> bool:
        """Clean models and infected ones count; failed attacks do not."""
        return self.attack is None or self.infected


def look_at(case: Case, group: str, asr: float | None, mode: str, budget: int, seed: int) -> dict[str, Any]:
    """The probe on one model, as JSON."""
    samples = draw_budget(case.pool, budget, seed)
    parts = split(samples, seed)
    fit, holdout, more = ((samples.x[index], samples.y[index]) for index in (parts.fit, parts.reward, parts.select))
    started = time.process_time()
    evidence = probe(case.classifier(), fit, holdout, mode=mode, seed=seed, more=more).evidence
    target = None if case.sealed is None else case.sealed.open(purpose=PURPOSE).target_class
    about = {"name": case.name, "group": group, "attack": case.recipe.attack, "infected": case.infected, "asr": asr}
    return about | as_json(evidence, target) | {"cpu_seconds": round(time.process_time() - started, 1)}


def as_json(evidence: Evidence, target: int | None) -> dict[str, Any]:
    """What a finding keeps of the evidence, with the true target."""
    return {
        "target": target,
        "mode": evidence.mode,
        "rows": [row.model_dump() for row in evidence.classes],
        "triggers": list(evidence.triggers),
        "seconds": evidence.seconds,
        "passes": evidence.passes,
    }


def read_findings(folder: Path) -> list[Finding]:
    """All files of a run."""
    found = []
    for path in sorted(folder.glob("*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(ClassEvidence.model_validate(row) for row in body["rows"])
        told = {f.name: body[f.name] for f in fields(Finding) if f.name in body}
        found.append(Finding(**told | {"rows": rows, "triggers": tuple(body.get("triggers", ()))}))
    return found


def table(findings: Sequence[Finding], chances: Sequence[float], families: Sequence[str] = ALL) -> str:
    """Markdown: one line a model, then AUROC, target among the suspects, transfer and cost.

    Args:
        findings: Models that count.
        chances: Probability of an infection of each.
        families: Whose evidence ranks the classes.
    """
    lines = ["| model | ASR % | probability | target | suspects | rank | lead | CPU s |", "|" + "---|" * 8]
    ranks, transfers = [], []
    for one, chance in zip(findings, chances, strict=True):
        rows = one.of(families)
        order = sorted((s := suspicion(rows)), key=lambda t: -s[t])
        rank = order.index(one.target) + 1 if one.target is not None else None
        if one.infected and rank is not None:
            ranks.append(rank <= 2)
            best = max((t["success"] or 0.0 for t in one.triggers if t["target"] == one.target), default=0.0)
            transfers.append(best >= TRANSFERS)
        cells = [
            one.name,
            "-" if one.asr is None else f"{100 * one.asr:.1f}",
            f"{chance:.2f}",
            "-" if one.target is None else str(one.target),
            ", ".join(map(str, order[:3])),
            str(rank or "-"),
            f"{features(rows)['lead']:.2f}",
            f"{one.cpu_seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *detection(findings, chances)]
    if ranks:
        lines.append(
            f"True target among the first two suspects: {np.mean(ranks):.0%} of {len(ranks)}; a trigger to it that flips "
            f"{TRANSFERS:.0%} of held-out samples is handed on: {np.mean(transfers):.0%}."
        )
    return "\n".join(lines)


def detection(findings: Sequence[Finding], chances: Sequence[float]) -> list[str]:
    """AUROC over all models and of each attack against all clean ones, and the errors at one half."""
    truth, scores = np.array([one.infected for one in findings]), np.array(chances)
    if len(set(truth.tolist())) < 2:
        return []
    wrong = int(((scores >= 0.5) != truth).sum())
    lines = [
        f"AUROC {roc_auc_score(truth, scores):.3f} over {truth.sum()} infected and {(~truth).sum()} clean models; "
        f"{wrong} on the wrong side of one half."
    ]
    kinds = sorted({one.attack for one in findings if one.attack is not None})
    of = {kind: ~truth | np.array([one.attack == kind for one in findings]) for kind in kinds}
    each = [f"{kind} {roc_auc_score(truth[of[kind]], scores[of[kind]]):.2f}" for kind in kinds]
    return [*lines, f"AUROC of each attack against all clean models: {', '.join(each)}."]


def main() -> None:
    """Run what is not finished yet and print the table."""
    from benchmarks.calibrate_probe import unseen_attack

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--zoo", type=Path, default=Path(__file__).parent / "zoo")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", default=["small"])
    parser.add_argument("--mode", default="screen", choices=("full", "screen"))
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="", help="only models whose name holds this")
    parser.add_argument("--fitted", type=Path, help="findings on other models: fit without the attack that is judged")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("modelmend.redteam.sealed").setLevel(logging.ERROR)
    options.out.mkdir(parents=True, exist_ok=True)
    for record in read_records(options.zoo):
        path = options.out / f"{record.name}.json"
        if record.group not in options.groups or options.name not in record.name or path.exists():
            continue
        case = _from_zoo(record, options.data, options.zoo)
        body = look_at(case, record.group, record.asr, options.mode, options.budget, options.seed)
        write_json(path, body)
        _LOG.warning("%s: %.0f CPU seconds", case.name, body["cpu_seconds"])
    findings = [one for one in read_findings(options.out) if one.counts and one.group in options.groups]
    if options.fitted:
        chances = unseen_attack(read_findings(options.fitted), findings)
    else:
        chances = [probability(one.rows).value for one in findings]
    print(table(findings, chances))


if __name__ == "__main__":
    main()
