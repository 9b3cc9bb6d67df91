"""Judging and registering: a verdict from evidence, a registry version only from a verdict that still holds."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from modelmend.artifacts import SCHEMAS, Artifact, read_artifact, sha256_json
from modelmend.errors import GateError
from modelmend.events import stage
from modelmend.gate.schema import Policy
from modelmend.records import Decision, PrivacyReport, Scorecard
from modelmend.steps.stores import SampleBank, open_samples, open_suspect, output


def gate_repair(
    samples: str, scorecard: str, privacy: str, decision: str, *, policy_uri: str = "", seed: int = 0
) -> str:
    """Judge the evidence against a policy; fails closed.

    Args:
        samples: SAMPLES artifact.
        scorecard: SCORECARD artifact.
        privacy: PRIVACY artifact about the same model.
        decision: Where the DECISION artifact goes.
        policy_uri: Policy file, or the name of a packaged policy; empty for ``default``.
        seed: Recorded in the decision.

    Returns:
        ``pass``, ``refuse`` or ``fallback``.
    """
    from modelmend.gate.policy import load_policy

    with stage("gate_repair") as running, tempfile.TemporaryDirectory() as work:
        policy = load_policy(local_policy(policy_uri, Path(work)))
        bank = open_samples(samples)
        measured, audited = read_artifact(scorecard, SCHEMAS["scorecard"]), read_artifact(privacy, SCHEMAS["privacy"])
        verdict = decide(policy, bank, measured, audited, seed)
        inputs = {"samples": bank.artifact, "scorecard": measured, "privacy": audited}
        with output(running, decision, "decision", inputs=inputs, seed=seed) as folder:
            verdict.write(folder / "decision.json")
        return str(verdict.verdict)


def local_policy(policy_uri: str, work: Path) -> str | None:
    """A path or packaged name of a policy; remote ones are fetched."""
    from modelmend import storage

    if not policy_uri:
        return None
    return str(storage.fetch(policy_uri, work)) if "://" in policy_uri else policy_uri


def decide(policy: Policy, bank: SampleBank, measured: Artifact, audited: Artifact, seed: int) -> Decision:
    """The decision that follows from a scorecard and an audit, which must be about the same model and samples.

    Raises:
        GateError: they are not.
    """
    from modelmend.gate.judge import judge

    for role in ("suspect", "samples", "edited"):
        found = {measured.inputs.get(role), audited.inputs.get(role)}
        found |= {bank.artifact.digest} if role == "samples" else set()
        if len(found) != 1 or None in found:
            raise GateError(
                "the evidence is about different artifacts",
                where=f"{measured.path}, {audited.path}",
                field=role,
                fix="pass the artifacts of one run",
            )
    card = Scorecard.read(measured.file("scorecard.json"))
    report = PrivacyReport.read(audited.file("privacy.json"))
    return judge(policy, card, report, samples_hash=bank.hash, seed=seed, looks=card.looks)


def register_model(
    suspect: str,
    samples: str,
    edited: str,
    scorecard: str,
    privacy: str,
    decision: str,
    registration: str,
    *,
    name: str = "",
    policy_uri: str = "",
    tracking_uri: str = "",
    configuration: str = "",
    seed: int = 0,
) -> str:
    """Register the repaired model if the decision, recomputed, still says pass.

    Args:
        suspect: SUSPECT artifact.
        samples: SAMPLES artifact.
        edited: EDITED artifact with the model to register.
        scorecard: SCORECARD artifact, logged as evidence.
        privacy: PRIVACY artifact, logged as evidence.
        decision: DECISION artifact.
        registration: Where the REGISTRATION artifact goes.
        name: Registered model; empty registers nothing.
        policy_uri: The policy that was asked for; its hash must be the decision's.
        tracking_uri: MLflow server or database.
        configuration: Anything else that shaped the run, as text; part of the registration key.
        seed: Part of the registration key.

    Returns:
        ``registered``, ``existing``, ``refused`` or ``unnamed``.
    """
    from modelmend.gate.policy import load_policy
    from modelmend.registry.register import register

    with stage("register_model") as running, tempfile.TemporaryDirectory() as work:
        source, bank = open_suspect(suspect), open_samples(samples)
        final, measured = read_artifact(edited, SCHEMAS["edited"]), read_artifact(scorecard, SCHEMAS["scorecard"])
        audited, judged = read_artifact(privacy, SCHEMAS["privacy"]), read_artifact(decision, SCHEMAS["decision"])
        told = Decision.read(judged.file("decision.json"))
        policy = load_policy(local_policy(policy_uri, Path(work)))
        again = decide(policy, bank, measured, audited, told.seed)
        made_from = {"scorecard": measured.digest, "privacy": audited.digest}
        about = {"edited": final.digest, "suspect": source.artifact.digest}
        if any(judged.inputs.get(k) != v for k, v in made_from.items()) or any(
            measured.inputs[k] != v for k, v in about.items()
        ):
            raise GateError("the decision is about another model", where=decision, fix="pass the artifacts of one run")
        if told != again and told.policy_hash == policy.hash():  # another policy is told by the registry
            raise GateError(
                "the decision does not follow from the evidence given with it",
                where=decision,
                fix="pass the artifacts of one run, or run gate_repair again",
            )
        result = register(
            told,
            policy,
            final.file("model.pt2"),
            name=name or None,
            tracking_uri=tracking_uri or None,
            key_inputs={
                "suspect": source.info.content_hash,
                "samples": bank.hash,
                "policy": policy.hash(),
                "configuration": sha256_json(
                    {
                        "given": configuration,
                        "preprocessing": source.info.preprocessing.model_dump(mode="json"),
                        "members": audited.params.get("members", ""),
                        "nonmembers": audited.params.get("nonmembers", ""),
                        **{k: v for k, v in measured.params.items() if k == "known_trigger"},
                    }
                ),
                "splits": bank.counts,
                "seed": seed,
            },
            suspect=source.info,
            artifacts={
                "decision.json": judged.file("decision.json"),
                "scorecard.json": measured.file("scorecard.json"),
                "privacy.json": audited.file("privacy.json"),
                "edit.json": final.file("edit.json"),
                "delta.safetensors": final.file("delta.safetensors"),
            },
        )
        inputs = {"suspect": source.artifact, "edited": final, "decision": judged}
        with output(running, registration, "registration", inputs=inputs, seed=seed) as folder:
            result.write(folder / "registration.json")
        return str(result.status)


def registration_record(path: str) -> dict[str, Any]:
    """The record of a REGISTRATION artifact as plain values."""
    values: dict[str, Any] = read_artifact(path, SCHEMAS["registration"]).json("registration.json")
    return values
