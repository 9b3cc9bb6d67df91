"""Telling: one HTML file that a manager and an auditor can read, also when the run failed."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelmend.artifacts import MANIFEST, SCHEMAS, Artifact, read_artifact
from modelmend.errors import ArtifactError, RegistryError
from modelmend.events import stage
from modelmend.records import Decision, Evidence, PrivacyReport, Registration, Scorecard, SuspectInfo

_log = logging.getLogger("modelmend.report")


def write_report(
    report: str, artifacts: Mapping[str, str], *, error: Mapping[str, Any] | None = None, tracking_uri: str = ""
) -> None:
    """Write the report from whatever artifacts there are; a registered version gets a copy beside its evidence.

    A server that does not take the copy is a warning: the version is registered, and the report lies here.

    Args:
        report: The HTML file to write.
        artifacts: Role (``suspect``, ``samples``, ``evidence``, ``activations``, ``pruned``, ``edited``,
            ``scorecard``, ``privacy``, ``decision``, ``registration``) -> directory; missing ones are left out.
        error: ``stage``, ``message``, ``where``, ``field``, ``fix`` of what stopped the run.
        tracking_uri: MLflow server that the version is registered at.
    """
    with stage("write_report"):
        registration = _write(report, artifacts, error)
        if registration is not None and error is None:
            try:
                _attach(registration, Path(report), tracking_uri)
            except RegistryError as refused:
                _log.warning("the report is not in the registry: %s", refused.message)


def _write(report: str, artifacts: Mapping[str, str], error: Mapping[str, Any] | None) -> Registration | None:
    from modelmend.report.html import write_report as render

    have: dict[str, Artifact] = {}
    for role, schema in SCHEMAS.items():
        path = artifacts.get(role)
        if path and (Path(path) / MANIFEST).is_file():
            try:
                have[role] = read_artifact(path, schema)
            except ArtifactError:
                if error is None:
                    raise

    def record(role: str, name: str) -> Any:
        return have[role].json(name) if role in have else None

    def typed(role: str, name: str, kind: Any) -> Any:
        return kind.read(have[role].file(name)) if role in have else None

    registration: Registration | None = typed("registration", "registration.json", Registration)
    pictures = []
    if "evidence" in have:
        pictures = [have["evidence"].file(n) for n in have["evidence"].files if n.endswith(".png")]
    render(
        Path(report),
        suspect=typed("suspect", "suspect.json", SuspectInfo),
        validation=record("samples", "validation.json"),
        domain=record("samples", "domain.json"),
        evidence=typed("evidence", "evidence.json", Evidence),
        pictures=pictures,
        pruning=record("pruned", "pruning.json"),
        edit=record("edited", "edit.json"),
        scorecard=typed("scorecard", "scorecard.json", Scorecard),
        privacy=typed("privacy", "privacy.json", PrivacyReport),
        decision=typed("decision", "decision.json", Decision),
        registration=registration,
        stages=[
            {"step": item.producer, "seconds": item.seconds, "passes": item.passes, "digest": item.digest}
            for item in have.values()
        ],
        error=error,
    )
    return registration


def _attach(registration: Registration, report: Path, tracking_uri: str) -> None:
    """Log the report beside a registered version, under a name that says what it is."""
    from modelmend.registry.register import attach

    if registration.version is None:
        return
    with tempfile.TemporaryDirectory() as work:
        named = Path(work) / "report.html"
        shutil.copyfile(report, named)
        attach(registration, {"report.html": named}, tracking_uri=tracking_uri or None)


def report_failure(state: str, message: str, report: str) -> None:
    """Write the short page that a pipeline leaves when it ends, whatever happened.

    Args:
        state: Final state of the run, such as ``SUCCEEDED`` or ``FAILED``.
        message: The orchestrator's message; may be empty.
        report: The HTML file to write.
    """
    failed = state not in ("SUCCEEDED", "COMPLETE", "SUCCESS")
    error = (
        {"stage": "pipeline", "message": f"{state}: {message or 'see the log of the failed task'}"} if failed else None
    )
    _write(report, {}, error)
