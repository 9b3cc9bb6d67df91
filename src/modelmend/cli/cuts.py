"""What the pruning of a run left: the record behind ``modelmend explain``, read from its artifacts alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelmend.artifacts import MANIFEST, SCHEMAS, Artifact, read_artifact
from modelmend.errors import InputError
from modelmend.rundir import RunDirectory, open_run

EXAGGERATED = " x"
"""In the family name of a trigger that the search applied stronger than it was found."""


@dataclass(frozen=True)
class Cuts:
    """What the pruning of a run left.

    Attributes:
        artifact: PRUNED.
        run: The run directory that it lies in, if it does.
        record: ``pruning.json``.
        log: ``search.jsonl``, a row an event.
    """

    artifact: Artifact
    run: RunDirectory | None
    record: dict[str, Any]
    log: list[dict[str, Any]]

    @property
    def explanation(self) -> dict[str, Any]:
        """The evidence of the cuts; empty when none was drawn up."""
        found: dict[str, Any] = self.record["explanation"]
        return found

    def beside(self, role: str) -> Artifact | None:
        """The artifact of the run that the pruning read as ``role``; ``None`` when it is not there or another one."""
        if self.run is None or not self.run.has(role):
            return None
        artifact = read_artifact(self.run.stage(role), SCHEMAS[role])
        return artifact if artifact.digest == self.artifact.inputs.get(role) else None


def open_cuts(path: Path) -> Cuts:
    """Open what the pruning of a run left.

    Args:
        path: Run directory, the folder of a demo, or a PRUNED artifact.

    Raises:
        InputError: no run, or one that has not come to pruning.
        ArtifactError: not whole, altered, or another stage's artifact.
    """
    path = path.resolve()
    run: RunDirectory | None
    if (path / MANIFEST).is_file():
        run = RunDirectory(path.parents[1]) if path.parent.name == "artifacts" else None
        folder = path
    else:
        inner = path / "run"  # a demo keeps its run there
        run = open_run(inner if not (path / "artifacts").is_dir() and (inner / "artifacts").is_dir() else path)
        if not run.has("pruned"):
            fix = "finish the run: repeat its command with the same --run-dir"
            raise InputError("the run has not come to pruning", where=run.path, field="artifacts/pruned", fix=fix)
        folder = run.stage("pruned")
    artifact = read_artifact(folder, SCHEMAS["pruned"])
    lines = artifact.file("search.jsonl").read_text(encoding="utf-8").splitlines()
    return Cuts(artifact, run, artifact.json("pruning.json"), [json.loads(line) for line in lines])


def summary(cuts: Cuts) -> dict[str, Any]:
    """The explanation record with the run's figures: what ``--json`` prints."""
    suspect = cuts.beside("suspect")
    record = cuts.record
    chosen = sorted(c["index"] for c in record["cut"])
    tried = (row for row in cuts.log if row["event"] == "candidate" and sorted(row["cut"]) == chosen)
    return {
        "artifact": str(cuts.artifact.path),
        "suspect_hash": suspect.json("suspect.json")["content_hash"] if suspect else cuts.artifact.inputs["suspect"],
        "pruned_hash": record["content_hash"],
        "seed": cuts.artifact.seed,
        "groups_cut": record["groups_cut"],
        "groups_total": record["groups_total"],
        "accuracy_drop": record["accuracy_drop"],
        "select_drop": next((row["select_drop"] for row in tried), None),
        "why_nothing": [] if record["cut"] else why_nothing(cuts),
        "triggers": _last_triggers(cuts),
        **cuts.explanation,
        "probe": cuts.explanation.get("probe") or _probe_of_log(cuts),
    }


def _probe_of_log(cuts: Cuts) -> list[dict[str, Any]]:
    """Probe success by family and class as the log has it: without weights."""
    rounds = [row for row in cuts.log if row["event"] == "rules"]
    if not rounds or not cuts.record["cut"]:
        return []
    pairs = sorted({(t["family"], -1 if t["target"] is None else t["target"]) for t in rounds[-1]["triggers"]})
    figures = zip(pairs, rounds[-1]["success_before"], cuts.record["probe_success_left"], strict=True)
    return [{"family": f, "target": t, "before": before, "after": after} for (f, t), before, after in figures]


def _last_triggers(cuts: Cuts) -> list[dict[str, Any]]:
    """Family and class of each trigger of the last round: the order of ``top_triggered``."""
    rounds = [row["triggers"] for row in cuts.log if row["event"] == "rules"]
    return rounds[-1] if rounds else []


def why_nothing(cuts: Cuts) -> list[str]:
    """Why the search cut nothing, in sentences, from its log and its thresholds."""
    config = cuts.artifact.params["config"]
    reasons = []
    for row in cuts.log:
        if row["event"] == "nothing to do":
            reasons.append(f"there was nothing to do: {row['reason']}")
        elif row["event"] == "not worth it":
            reasons.append(
                f"not worth it: the best set of cuts in search round {row['round'] + 1} is worth {row['reward']:.2f} "
                f"(fall in probe success less its costs), and cutting begins at {config['least_reward']:.2f}"
            )
        elif row["event"] == "verified":
            grown = ", ".join(f"{g['family']} to class {g['target']} x{g['ratio']:.2f}" for g in row["growth"])
            reasons.append(
                f"the chosen cuts {row['cut']} did not pass verification: probed again from scratch, no class's "
                f"smallest triggers became {config['least_growth']:g} times as large ({grown or 'none to compare'})"
            )
    if not reasons:
        tried = sum(1 for row in cuts.log if row["event"] == "candidate" and row["cut"])
        reasons.append(
            f"none of {tried} candidate sets of cuts was better than none on all samples together (a set must "
            f"be worth {config['least_reward']:.2f} and lower a class's probe success by "
            f"{config['least_fall']:.2f})"
        )
    return reasons


def first_triggers(cuts: Cuts) -> dict[tuple[str, int | None], int]:
    """Family and class of the triggers found on the suspect -> position in ``top_triggered``; none exaggerated."""
    found: dict[tuple[str, int | None], int] = {}
    for index, trigger in enumerate(_last_triggers(cuts)):
        if EXAGGERATED not in trigger["family"]:
            found.setdefault((trigger["family"], trigger["target"]), index)
    return found


def trigger_name(family: str, target: int | None) -> str:
    """What a trigger is called where a person reads it."""
    return f"{family}, class {'any' if target is None else target}"
