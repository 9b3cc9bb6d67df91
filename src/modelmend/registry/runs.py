"""The MLflow run behind a version: parameters, figures and evidence files; found again when it was begun before."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmend.records import Decision, Scorecard
from modelmend.registry.connect import experiment_id
from modelmend.registry.provenance import TAG_KEY

_log = logging.getLogger("modelmend.registry")
EVIDENCE_FOLDER = "modelmend"


def run_for(client: Any, uri: str, key: str, name: str) -> tuple[str, bool]:
    """Id of the run to log to, and whether it is ours to end.

    The run that an orchestrator started (``MLFLOW_RUN_ID``), else one that an earlier attempt began for this key,
    else a new one.
    """
    if given := os.environ.get("MLFLOW_RUN_ID"):
        return given, False
    experiment = experiment_id(client, uri)
    found = client.search_runs([experiment], f"tags.`{TAG_KEY}` = '{key}'", max_results=1)
    if found:
        return str(found[0].info.run_id), True
    tags = {TAG_KEY: key, "mlflow.source.name": "modelmend", "mlflow.source.type": "JOB"}
    return str(client.create_run(experiment, tags=tags, run_name=f"repair {name}").info.run_id), True


def log_evidence(client: Any, run_id: str, decision: Decision, artifacts: Mapping[str, Path], folder: str) -> None:
    """Log what the verdict rests on. Repeating it changes nothing.

    Args:
        client: An ``MlflowClient``.
        run_id: Where to.
        decision: Gives parameters and the number behind every check.
        artifacts: File name -> file; a ``scorecard.json`` also gives figures.
        folder: Artifact folder for the files.
    """
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    params = {
        "policy": decision.policy_name,
        "policy_hash": decision.policy_hash,
        "suspect_hash": decision.suspect_hash,
        "samples_hash": decision.samples_hash,
        "repaired_hash": decision.repaired_hash,
        "code_version": decision.code_version,
        "seed": str(decision.seed),
        "looks": str(decision.looks),
    }
    known = [Param(f"modelmend.{key}", value) for key, value in params.items()]
    try:
        client.log_batch(run_id, params=known)
    except MlflowException as error:  # a run shared by several models holds other values, and parameters never change
        _log.warning("the run keeps its parameters: %s", str(error).splitlines()[0])
    figures = {f"check.{check.name}": check.value for check in decision.checks}
    figures["composite"] = decision.composite
    if "scorecard.json" in artifacts:
        figures.update(_figures(Scorecard.read(artifacts["scorecard.json"])))
    metrics = [
        Metric(re.sub(r"[^\w\-. /:]", "-", f"modelmend.{name}"), float(value), 0, 0)
        for name, value in sorted(figures.items())
        if value is not None and math.isfinite(value)
    ]
    client.log_batch(run_id, metrics=metrics)
    for name, file in artifacts.items():
        parent = Path(name).parent.as_posix()
        client.log_artifact(run_id, str(file), folder if parent == "." else f"{folder}/{parent}")


def _figures(card: Scorecard) -> dict[str, float | None]:
    successes = [row.after.value for row in card.residuals if row.after.value is not None]
    before = [row.before.value for row in card.residuals if row.before.value is not None]
    return {
        "accuracy_before": card.accuracy_before.value,
        "accuracy_after": card.accuracy_after.value,
        "accuracy_drop": card.accuracy_drop.value,
        "probe_success_before": max(before, default=None),
        "probe_success_after": max(successes, default=None),
        "groups_cut": float(card.groups_cut),
        "parameters_after": None if card.parameters_after is None else float(card.parameters_after),
        "seconds": math.fsum(card.seconds.values()),
        "sample_passes": math.fsum(card.passes.values()),
    }
