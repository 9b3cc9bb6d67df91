"""Telling: one HTML file that a manager and an auditor can read, also when the run failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelmend.artifacts import MANIFEST, Artifact, read_artifact
from modelmend.errors import ArtifactError
from modelmend.events import stage
from modelmend.records import Decision, Evidence, PrivacyReport, Registration, Scorecard, SuspectInfo
from modelmend.steps import stores


def write_report(
    report: str,
    *,
    suspect: str = "",
    samples: str = "",
    evidence: str = "",
    activations: str = "",
    pruned: str = "",
    edited: str = "",
    scorecard: str = "",
    privacy: str = "",
    decision: str = "",
    registration: str = "",
    error: dict[str, Any] | None = None,
) -> None:
    """Write the report from whatever artifacts there are.

    Args:
        report: The HTML file to write.
        suspect: SUSPECT artifact, or empty; so for all that follow.
        samples: SAMPLES artifact.
        evidence: EVIDENCE artifact.
        activations: ACTIVATIONS artifact.
        pruned: PRUNED artifact.
        edited: EDITED artifact.
        scorecard: SCORECARD artifact.
        privacy: PRIVACY artifact.
        decision: DECISION artifact.
        registration: REGISTRATION artifact.
        error: ``stage``, ``message``, ``where``, ``field``, ``fix`` of what stopped the run.
    """
    from modelmend.report.html import write_report as render

    with stage("write_report"):
        paths = {
            "suspect": (suspect, stores.SUSPECT),
            "samples": (samples, stores.SAMPLES),
            "evidence": (evidence, stores.EVIDENCE),
            "activations": (activations, stores.ACTIVATIONS),
            "pruned": (pruned, stores.PRUNED),
            "edited": (edited, stores.EDITED),
            "scorecard": (scorecard, stores.SCORECARD),
            "privacy": (privacy, stores.PRIVACY),
            "decision": (decision, stores.DECISION),
            "registration": (registration, stores.REGISTRATION),
        }
        have: dict[str, Artifact] = {}
        for role, (path, schema) in paths.items():
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
            registration=typed("registration", "registration.json", Registration),
            stages=[
                {"step": item.producer, "seconds": item.seconds, "passes": item.passes, "digest": item.digest}
                for item in have.values()
            ],
            error=error,
        )


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
    write_report(report, error=error)
