"""What a registered version can prove about itself: the registration key and the in-toto statement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from modelmend.artifacts import sha256_json
from modelmend.records import Decision, SuspectInfo
from modelmend.registry.connect import redacted
from modelmend.registry.model_dir import MODEL_FILE


class RegistryRules(Protocol):
    """What a policy says about registration."""

    @property
    def alias(self) -> str:
        """The alias that a passed version gets."""
        ...

    @property
    def require_signature(self) -> bool:
        """Refuse to register without a signature."""
        ...


class PolicyLike(Protocol):
    """What registration needs of the gate's policy."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def registry(self) -> RegistryRules:
        """Its rules for registration."""
        ...

    def hash(self) -> str:
        """Hash over all its values."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """All its values."""
        ...


STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:modelmend:repair:v1"

TAG_KEY = "modelmend.registration_key"
TAG_DECISION = "modelmend.decision_hash"
TAG_CONTENT = "modelmend.content_hash"
TAG_FILES = "modelmend.files_hash"
TAG_STATUS = "modelmend.status"
TAG_PARENT = "modelmend.parent"
TAG_REASON = "modelmend.reason"
TAG_SIGNED = "modelmend.signed"
PENDING, REGISTERED, REJECTED, SUPERSEDED = "pending", "registered", "rejected", "superseded"
"""Life of a version: pending at first; then registered, rejected (the stored copy differs) or superseded."""


def registration_key(key_inputs: Mapping[str, Any], *, code_version: str, name: str) -> str:
    """Hash over inputs only: the same request gives the same key, whatever was measured and whenever it ran."""
    return sha256_json({**key_inputs, "code_version": code_version, "name": name})


def decision_hash(decision: Decision) -> str:
    """Hash over the whole decision."""
    return sha256_json(decision.model_dump(mode="json"))


def statement(
    decision: Decision,
    *,
    key: str,
    key_inputs: Mapping[str, Any],
    suspect: SuspectInfo,
    policy: Mapping[str, Any],
    file_hash: str,
) -> dict[str, Any]:
    """An in-toto statement about the model file: where it comes from and what it was judged by.

    Holds no time and no measurement but the decision's, so that writing it again gives the same bytes.
    """
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": MODEL_FILE, "digest": {"sha256": file_hash.removeprefix("sha256:")}}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "content_hash": decision.repaired_hash,
            "suspect": {
                "source": redacted(suspect.source),
                "content_hash": suspect.content_hash,
                "file_hash": suspect.file_hash,
            },
            "samples_hash": decision.samples_hash,
            "policy": {"hash": decision.policy_hash, "content": dict(policy)},
            "decision_hash": decision_hash(decision),
            "decision": decision.model_dump(mode="json"),
            "registration_key": key,
            "key_inputs": dict(key_inputs),
            "code_version": decision.code_version,
        },
    }
