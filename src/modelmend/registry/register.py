"""Registering a repaired model: only on a verdict that still holds, once for each request, and only what was judged.

Order of events: the model directory and the evidence are uploaded to a run; the version is created with its
registration key; the stored copy is downloaded, read as data and compared; then come tags, alias, and last the status
``registered``. Killed anywhere, a repeated call finds the run and the version by the key and goes on from there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelmend.artifacts import sha256_file, sha256_json, write_json
from modelmend.errors import ArtifactError, ModelRefused, ModelUnsupported, RegistryError
from modelmend.records import Decision, Registration, SuspectInfo
from modelmend.registry import aliases, provenance
from modelmend.registry.connect import client, download, redacted, talking_to, tracking_uri_or_default
from modelmend.registry.model_dir import MODEL_FILE, STATEMENT_FILE, build_model_dir, content_hash_of, listing
from modelmend.registry.plain import register_plain
from modelmend.registry.provenance import PolicyLike
from modelmend.registry.runs import EVIDENCE_FOLDER, log_evidence, run_for
from modelmend.registry.signing import sign_dir, signing_key
from modelmend.registry.versions import ensure_model, find_version, give_up, reject

__all__ = ["attach", "register", "register_plain"]


@dataclass(frozen=True)
class Request:
    """One registration that was asked for and whose evidence holds."""

    decision: Decision
    policy: PolicyLike
    model_path: Path
    name: str
    uri: str
    key: str
    key_inputs: Mapping[str, Any]
    suspect: SuspectInfo
    artifacts: Mapping[str, Path]
    signing_key: Path | None


def register(
    decision: Decision,
    policy: PolicyLike,
    model_path: Path,
    *,
    name: str | None,
    tracking_uri: str | None,
    key_inputs: Mapping[str, Any],
    suspect: SuspectInfo,
    artifacts: Mapping[str, Path],
    key_file: Path | None = None,
) -> Registration:
    """Register a model that passed the gate.

    Args:
        decision: The gate's decision; re-checked, not trusted.
        policy: The policy that was asked for.
        model_path: The repaired ``.pt2`` file.
        name: Registered model; ``None`` registers nothing.
        tracking_uri: MLflow server or database; ``None`` for ``MLFLOW_TRACKING_URI``.
        key_inputs: Everything that was put in (suspect, samples, policy, configuration, seed), as JSON values; with
            code version and name it gives the registration key.
        suspect: What was imported.
        artifacts: Evidence to log beside the model, file name -> file.
        key_file: EC private key to sign with; ``None`` for ``MODELMEND_SIGNING_KEY``, unsigned without it.

    Returns:
        ``registered`` (by this call), ``existing`` (by an earlier one), ``refused`` (no pass) or ``unnamed``.

    Raises:
        RegistryError: the decision does not belong to this file, suspect, policy or samples; MLflow cannot be
            reached or refuses; the stored copy differs from what was judged; a signature is required and impossible.
    """
    judged = provenance.decision_hash(decision)
    if decision.verdict != "pass":
        reason = "; ".join(decision.reasons)
        return Registration(status="refused", name=name, decision_hash=judged, reason=reason)
    recheck(decision, policy, model_path, suspect, key_inputs)
    if not name:
        return Registration(
            status="unnamed", decision_hash=judged, reason="passed; no name to register under was given"
        )
    signer = signing_key(key_file)
    if policy.registry.require_signature and signer is None:
        raise RegistryError(
            f"policy {policy.name!r} requires a signature and there is no key",
            field="registry.require_signature",
            fix="give an EC private key (MODELMEND_SIGNING_KEY)",
        )
    key = provenance.registration_key(key_inputs, code_version=decision.code_version, name=name)
    uri = tracking_uri_or_default(tracking_uri)
    request = Request(
        decision, policy, Path(model_path), name, uri, key, dict(key_inputs), suspect, dict(artifacts), signer
    )
    with talking_to(uri), tempfile.TemporaryDirectory() as work:
        return _register(client(uri), request, Path(work))


def recheck(
    decision: Decision, policy: PolicyLike, model_path: Path, suspect: SuspectInfo, key_inputs: Mapping[str, Any]
) -> None:
    """Recompute all that a pass rests on; raises ``RegistryError`` naming what does not belong together."""
    stated = {"suspect": decision.suspect_hash, "samples": decision.samples_hash, "policy": decision.policy_hash}
    pairs = [
        ("repaired_hash", decision.repaired_hash, content_hash_of(Path(model_path))),
        ("policy_hash", decision.policy_hash, policy.hash()),
        ("suspect_hash", decision.suspect_hash, suspect.content_hash),
        *((f"key_inputs.{role}", value, key_inputs.get(role)) for role, value in stated.items()),
    ]
    for field, said, found in pairs:
        if said != found:
            raise RegistryError(
                f"the decision is about {said}, this is {found}",
                where=model_path,
                field=field,
                fix="register with the artifacts and the policy of one and the same run, or judge that run again",
            )
    if not decision.checks or any(check.blocks for check in decision.checks):
        raise RegistryError("the decision says pass although a check blocks", field="checks", fix="judge again")


def attach(registration: Registration, files: Mapping[str, Path], *, tracking_uri: str | None = None) -> None:
    """Log more files, such as the report, beside a registered version's evidence; nothing without a version.

    What is there stays: a repeated run may not replace the evidence of the version that answers for it.

    Args:
        registration: Names the version.
        files: File name -> file.
        tracking_uri: MLflow server or database with its credentials, which the registration does not hold.
    """
    if registration.version is None or registration.name is None:
        return
    uri = tracking_uri_or_default(tracking_uri or registration.tracking_uri)
    with talking_to(uri):
        mlflow = client(uri)
        run_id = mlflow.get_model_version(registration.name, registration.version).run_id
        there = {item.path for item in mlflow.list_artifacts(run_id, EVIDENCE_FOLDER)}
        for name, file in files.items():
            if f"{EVIDENCE_FOLDER}/{name}" not in there:
                mlflow.log_artifact(run_id, str(file), EVIDENCE_FOLDER)


def _register(mlflow: Any, request: Request, work: Path) -> Registration:
    ensure_model(mlflow, request.name)
    version = find_version(mlflow, request.name, request.key)
    judged = request.decision.repaired_hash
    if version is not None and _pending(version) and version.tags.get(provenance.TAG_CONTENT) != judged:
        give_up(mlflow, version, "never completed; a repeated run gave another model")
        version = None
    if version is None:
        version = _create(mlflow, request, work / "model")
    if not _pending(version):
        return _answer(request, version.version, "existing", "the same request was registered before")
    _compare(mlflow, request, version, work / "stored")
    _finish(mlflow, request, version)
    return _answer(request, version.version, "registered", "every check passed; the stored copy is what was judged")


def _pending(version: Any) -> bool:
    return bool(version.tags.get(provenance.TAG_STATUS) == provenance.PENDING)


def _create(mlflow: Any, request: Request, folder: Path) -> Any:
    """Upload, then create the version with its key from the first instant."""
    run_id, _ = run_for(mlflow, request.uri, request.key, request.name)
    _build(request, folder)
    files = sha256_json(listing(folder))
    place = f"model-{files.removeprefix('sha256:')[:16]}"  # by content: attempts never write over each other
    mlflow.log_artifacts(run_id, str(folder), place)
    log_evidence(mlflow, run_id, request.decision, request.artifacts, EVIDENCE_FOLDER)
    root = mlflow.get_run(run_id).info.artifact_uri
    tags = {
        provenance.TAG_STATUS: provenance.PENDING,
        provenance.TAG_KEY: request.key,
        provenance.TAG_DECISION: provenance.decision_hash(request.decision),
        provenance.TAG_CONTENT: request.decision.repaired_hash,
        provenance.TAG_FILES: files,
    }
    source = f"{root.rstrip('/')}/{place}"
    created = mlflow.create_model_version(request.name, source, run_id=run_id, tags=tags, await_creation_for=0)
    first = find_version(mlflow, request.name, request.key)
    if first is not None and first.version != created.version:
        give_up(mlflow, created, f"version {first.version} answers the same request")
        return first  # another process was faster
    return mlflow.get_model_version(request.name, created.version)


def _build(request: Request, folder: Path) -> None:
    suspect = request.suspect
    build_model_dir(
        folder,
        request.model_path,
        input_shape=suspect.input_shape,
        num_classes=suspect.num_classes,
        dtype=suspect.dtype,
        metadata={"modelmend": {"preprocessing": suspect.preprocessing.model_dump(mode="json")}},
    )
    said = provenance.statement(
        request.decision,
        key=request.key,
        key_inputs=request.key_inputs,
        suspect=suspect,
        policy=request.policy.model_dump(mode="json"),
        file_hash=sha256_file(folder / MODEL_FILE),
    )
    (folder / STATEMENT_FILE).parent.mkdir()
    write_json(folder / STATEMENT_FILE, said)
    if request.signing_key is not None:
        sign_dir(folder, request.signing_key)


def _compare(mlflow: Any, request: Request, version: Any, folder: Path) -> None:
    """Download the stored copy and compare every file and the model's content; reject the version if they differ."""
    stored = download(version.source, folder, request.uri)
    fault = ""
    if sha256_json(listing(stored)) != version.tags.get(provenance.TAG_FILES):
        fault = "the stored files are not those that were uploaded"
    else:
        try:
            found = content_hash_of(stored / MODEL_FILE)
            if found != request.decision.repaired_hash:
                fault = f"the stored model is {found}, judged was {request.decision.repaired_hash}"
        except (ModelRefused, ModelUnsupported, ArtifactError, RegistryError) as error:
            fault = f"the stored model cannot be read: {error.message}"
    if fault:
        reject(mlflow, version, fault)
        raise RegistryError(
            fault,
            where=f"models:/{request.name}/{version.version}",
            fix="the version is tagged rejected and has no alias; find out who can write to the artifact store",
        )


def _finish(mlflow: Any, request: Request, version: Any) -> None:
    """Tags, alias, end of the run, and last the status; every part may be repeated."""
    decision, policy = request.decision, request.policy
    tags = {
        "modelmend.policy": policy.name,
        "modelmend.policy_hash": decision.policy_hash,
        "modelmend.suspect_hash": decision.suspect_hash,
        "modelmend.samples_hash": decision.samples_hash,
        "modelmend.code_version": decision.code_version,
        "modelmend.not_run": json.dumps(decision.not_run),
        provenance.TAG_SIGNED: "true" if request.signing_key else "false",
        provenance.TAG_PARENT: redacted(request.suspect.source),
    }
    for tag, value in tags.items():
        mlflow.set_model_version_tag(request.name, version.version, tag, value)
    reason = f"passed policy {policy.name} ({decision.policy_hash[:19]})"
    aliases.place(mlflow, request.name, policy.registry.alias, version.version, reason=reason)
    run_id, ours = run_for(mlflow, request.uri, request.key, request.name)
    if ours and run_id == version.run_id:
        mlflow.set_terminated(run_id)
    mlflow.set_model_version_tag(request.name, version.version, provenance.TAG_STATUS, provenance.REGISTERED)


def _answer(request: Request, version: str, status: Any, reason: str) -> Registration:
    return Registration(
        status=status,
        name=request.name,
        version=str(version),
        alias=request.policy.registry.alias,
        tracking_uri=redacted(request.uri),
        registration_key=request.key,
        decision_hash=provenance.decision_hash(request.decision),
        reason=reason,
    )
