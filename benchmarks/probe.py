"""Does the probe find backdoors: ``python -m benchmarks.probe --data DIR --zoo DIR --out DIR --groups small``.

Every model is looked at with every trigger family, once; each model is one file in the output folder, so a run can be
stopped and started again. Detection is then worked out for any set of families from those files.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.cases import Case, _from_zoo, draw_budget
from modelmend.artifacts import write_json
from modelmend.metrics import sample_passes
from modelmend.probe.calibration import features, probability
from modelmend.probe.choice import USED
from modelmend.probe.families import FAMILIES
from modelmend.probe.margin import MARGIN, margin_evidence
from modelmend.probe.run import look, settings
from modelmend.probe.score import suspicion
from modelmend.records import ClassEvidence
from modelmend.redteam.sealed import PURPOSE
from modelmend.redteam.store import read_records
from modelmend.samples.split import split

_LOG = logging.getLogger("benchmarks.probe")
BUDGET = 1000
"""Clean samples that the defender has; a fifth fits triggers, a fifth is held out for their success."""
TRANSFERS = 0.6


@dataclass(frozen=True)
class Finding:
    """What all families found on one model, with what is true of it."""

    name: str
    group: str
    attack: str | None
    infected: bool
    asr: float | None
    target: int | None
    rows: tuple[ClassEvidence, ...]

    def of(self, families: Sequence[str]) -> tuple[ClassEvidence, ...]:
        """The rows of these families."""
        return tuple(row for row in self.rows if row.family in families)


def look_at(case: Case, group: str, asr: float | None, mode: str, budget: int, seed: int) -> dict[str, Any]:
    """All families on one model, as JSON."""
    samples = draw_budget(case.pool, budget, seed)
    parts = split(samples, seed)
    fit, holdout = ((samples.x[index], samples.y[index]) for index in (parts.fit, parts.reward))
    classifier = case.classifier()
    config = settings(mode, case.num_classes)
    rows: list[ClassEvidence] = []
    costs: dict[str, dict[str, float]] = {}

    def families() -> Iterator[tuple[str, Callable[[], tuple[ClassEvidence, ...]]]]:
        everyone = list(range(case.num_classes))
        for name, family in FAMILIES.items():
            yield name, lambda family=family: look(classifier, fit, holdout, family, everyone, config, seed).rows
        yield MARGIN, lambda: margin_evidence(classifier, fit[0], everyone, seed=seed)

    for name, run in families():
        started, spent = (time.monotonic(), time.process_time()), sample_passes()
        rows += run()
        costs[name] = {
            "seconds": time.monotonic() - started[0],
            "cpu_seconds": time.process_time() - started[1],
            "passes": sample_passes() - spent,
        }
    target = None if case.sealed is None else case.sealed.open(purpose=PURPOSE).target_class
    return {
        "name": case.name,
        "group": group,
        "attack": case.recipe.attack,
        "infected": case.infected,
        "asr": asr,
        "target": target,
        "mode": mode,
        "rows": [row.model_dump() for row in rows],
        "costs": costs,
    }


def read_findings(folder: Path) -> list[Finding]:
    """All files of a run."""
    found = []
    for path in sorted(folder.glob("*.json")):
        body = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(ClassEvidence.model_validate(row) for row in body["rows"])
        keys = ("name", "group", "attack", "infected", "asr", "target")
        found.append(Finding(*(body[key] for key in keys), rows))
    return found


def table(findings: Sequence[Finding], families: Sequence[str]) -> str:
    """Markdown: one line a model, then AUROC, target among the suspects, and transfer."""
    lines = [
        "| model | ASR % | p | lead | anomaly | target | suspects | rank | success |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    truth, scores, ranks, transfers = [], [], [], []
    for one in findings:
        rows = one.of(families)
        if not rows or (one.attack is not None and not one.infected):
            continue
        order = sorted((s := suspicion(rows)), key=lambda t: -s[t])
        chance, found = probability(rows).value, features(rows)
        rank = order.index(one.target) + 1 if one.target is not None else None
        success = max((row.success or 0 for row in rows if row.target == one.target), default=None)
        truth.append(one.infected)
        scores.append(chance)
        if one.infected and rank is not None:
            ranks.append(rank <= 2)
            transfers.append((success or 0) >= TRANSFERS)
        cells = [
            one.name,
            "-" if one.asr is None else f"{100 * one.asr:.1f}",
            f"{chance:.2f}",
            f"{found['lead']:.2f}",
            f"{found['anomaly']:.2f}",
            str(one.target),
            ",".join(map(str, order[:3])),
            str(rank or "-"),
            "-" if success is None else f"{success:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if len(set(truth)) == 2:
        lines.append(
            f"\nAUROC {roc_auc_score(truth, scores):.3f} over {sum(truth)} infected, {len(truth) - sum(truth)} clean"
        )
    if ranks:
        lines.append(
            f"target in first two suspects {np.mean(ranks):.0%}, transferring candidate {np.mean(transfers):.0%}"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is not finished yet and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--zoo", type=Path, default=Path(".zoo"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--groups", nargs="+", default=["small"])
    parser.add_argument("--mode", default="screen", choices=("full", "screen"))
    parser.add_argument("--budget", type=int, default=BUDGET)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="", help="only models whose name holds this")
    parser.add_argument("--families", nargs="+", default=list(USED))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for record in read_records(options.zoo):
        path = options.out / f"{record.name}.json"
        if record.group not in options.groups or options.name not in record.name or path.exists():
            continue
        case = _from_zoo(record, options.data, options.zoo)
        body = look_at(case, record.group, record.asr, options.mode, options.budget, options.seed)
        write_json(path, body)
        _LOG.warning("%s: %s", case.name, {k: round(v["seconds"]) for k, v in body["costs"].items()})
    print(table(read_findings(options.out), options.families))


if __name__ == "__main__":
    main()
