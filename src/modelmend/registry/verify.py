"""Checking a registered version or a model directory against the statement and the signature that it carries."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from modelmend.artifacts import sha256_file, sha256_json
from modelmend.errors import ModelmendError, RegistryError
from modelmend.records import Decision, Record
from modelmend.registry import provenance
from modelmend.registry.connect import client, download, talking_to, tracking_uri_or_default
from modelmend.registry.model_dir import MODEL_FILE, STATEMENT_FILE, content_hash_of, listing
from modelmend.registry.signing import check_signature

_TARGET = re.compile(r"models:/(?P<name>[^/@]+)(/(?P<version>\d+)|@(?P<alias>[^/@]+))")


class VerifyCheck(Record):
    """One question; ``ok`` is ``None`` when it could not be asked."""

    name: str
    ok: bool | None
    detail: str


class VerifyReport(Record):
    """What verification found.

    ``verified``: everything holds, the signature too. ``unsigned``: all hashes agree, but nobody vouches for them;
    whoever can write to the store could have written all of it. ``failed``: something does not hold.
    """

    target: str
    status: Literal["verified", "unsigned", "failed"]
    checks: tuple[VerifyCheck, ...]


def verify(target: str | Path, *, tracking_uri: str | None = None, public_key: Path | None = None) -> VerifyReport:
    """Check a model that modelmend registered.

    Args:
        target: ``models:/name/3``, ``models:/name@alias``, or a model directory (downloaded or on a shared disk).
        tracking_uri: MLflow server or database, for ``models:/``.
        public_key: PEM file of the signer; without it the signature is not checked.

    Raises:
        RegistryError: the target does not exist or MLflow cannot be reached.
    """
    match = _TARGET.fullmatch(str(target))
    if match is None:
        folder = Path(target)
        if not folder.is_dir():
            raise RegistryError(
                "neither models:/name/version, models:/name@alias nor a model directory", where=target, field="target"
            )
        return _report(str(target), list(_checks(folder, public_key)))
    uri = tracking_uri_or_default(tracking_uri)
    with talking_to(uri), tempfile.TemporaryDirectory() as work:
        mlflow = client(uri)
        version = (
            mlflow.get_model_version_by_alias(match["name"], match["alias"])
            if match["alias"]
            else mlflow.get_model_version(match["name"], match["version"])
        )
        folder = download(version.source, Path(work) / "stored", uri)
        checks = [*_checks(folder, public_key), *_registry_checks(folder, version)]
        return _report(f"models:/{version.name}/{version.version}", checks)


def _report(target: str, checks: list[VerifyCheck]) -> VerifyReport:
    failed = any(check.ok is False for check in checks)
    open_questions = any(check.ok is None for check in checks)
    return VerifyReport(
        target=target,
        status="failed" if failed else "unsigned" if open_questions else "verified",
        checks=tuple(checks),
    )


def _checks(folder: Path, public_key: Path | None) -> Iterator[VerifyCheck]:
    statement, fault = _read_statement(folder)
    yield VerifyCheck(name="statement", ok=not fault, detail=fault or "provenance statement is present and well-formed")
    if statement is not None:
        predicate = statement["predicate"]
        yield _model_check(folder, statement)
        yield _decision_check(predicate)
    others = sorted(path.name for path in (folder / "data").glob("*") if path.name != "model.pt2")
    detail = f"unexpected: {', '.join(others)}" if others else "data/ holds the model file and nothing else"
    yield VerifyCheck(name="files", ok=not others, detail=detail)
    if public_key is None:
        yield VerifyCheck(name="signature", ok=None, detail="not checked: no public key was given")
    else:
        broken = check_signature(folder, public_key)
        yield VerifyCheck(
            name="signature", ok=broken is None, detail=broken or f"signed by the key of {public_key.name}"
        )


def _read_statement(folder: Path) -> tuple[dict[str, Any] | None, str]:
    try:
        said = json.loads((folder / STATEMENT_FILE).read_text(encoding="utf-8"))
        kinds = (said["_type"], said["predicateType"])
        if kinds != (provenance.STATEMENT_TYPE, provenance.PREDICATE_TYPE):
            return None, f"a statement of another kind: {kinds}"
        for key in ("content_hash", "decision", "decision_hash", "policy", "registration_key"):
            said["predicate"][key]
        said["subject"][0]["digest"]["sha256"]
    except OSError:
        return None, "there is no provenance statement: modelmend did not register this model"
    except (ValueError, KeyError, TypeError, IndexError) as error:
        return None, f"the statement is damaged: {error!r}"
    return said, ""


def _model_check(folder: Path, statement: dict[str, Any]) -> VerifyCheck:
    try:
        content, file = content_hash_of(folder / MODEL_FILE), sha256_file(folder / MODEL_FILE)
    except ModelmendError as error:
        return VerifyCheck(name="model", ok=False, detail=error.message)
    if file != f"sha256:{statement['subject'][0]['digest']['sha256']}":
        return VerifyCheck(name="model", ok=False, detail=f"the file is {file}, not the one of the statement")
    if content != statement["predicate"]["content_hash"]:
        return VerifyCheck(name="model", ok=False, detail=f"the content is {content}, not that of the statement")
    return VerifyCheck(name="model", ok=True, detail=f"content {content}")


def _decision_check(predicate: dict[str, Any]) -> VerifyCheck:
    try:
        decision = Decision.model_validate_json(json.dumps(predicate["decision"]))
    except ValueError as error:
        return VerifyCheck(name="decision", ok=False, detail=f"unreadable: {str(error).splitlines()[0]}")
    policy = predicate["policy"]
    held = {
        "its verdict is pass": decision.verdict == "pass",
        "no check blocks": bool(decision.checks) and not any(check.blocks for check in decision.checks),
        "its hash is right": provenance.decision_hash(decision) == predicate["decision_hash"],
        "it is about this model": decision.repaired_hash == predicate["content_hash"],
        "it was made by this policy": decision.policy_hash == policy.get("hash") == sha256_json(policy.get("content")),
    }
    broken = [words for words, holds in held.items() if not holds]
    detail = f"not true: {'; '.join(broken)}" if broken else f"passed policy {decision.policy_name}"
    return VerifyCheck(name="decision", ok=not broken, detail=detail)


def _registry_checks(folder: Path, version: Any) -> Iterator[VerifyCheck]:
    status = version.tags.get(provenance.TAG_STATUS)
    yield VerifyCheck(
        name="status", ok=status == provenance.REGISTERED, detail=f"the version is {status or 'not of modelmend'}"
    )
    statement, _ = _read_statement(folder)
    if statement is None:
        return
    predicate = statement["predicate"]
    expected = {
        provenance.TAG_KEY: predicate["registration_key"],
        provenance.TAG_DECISION: predicate["decision_hash"],
        provenance.TAG_CONTENT: predicate["content_hash"],
        provenance.TAG_FILES: sha256_json(listing(folder)),
    }
    wrong = [tag for tag, value in expected.items() if version.tags.get(tag) != value]
    detail = f"differ from the stored files: {', '.join(wrong)}" if wrong else "tags and stored files agree"
    yield VerifyCheck(name="tags", ok=not wrong, detail=detail)
