"""Model versions by registration key, and the two ways in which one ends without being registered."""

from __future__ import annotations

from typing import Any

from modelmend.registry.provenance import REJECTED, SUPERSEDED, TAG_KEY, TAG_REASON, TAG_STATUS


def ensure_model(mlflow: Any, name: str) -> None:
    """Create the registered model unless it is there."""
    from mlflow.exceptions import MlflowException

    try:
        mlflow.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def find_version(mlflow: Any, name: str, key: str) -> Any | None:
    """First live version with this registration key (rejected and superseded ones are not live), or ``None``."""
    found = mlflow.search_model_versions(f"name = '{name}' and tags.`{TAG_KEY}` = '{key}'")
    live = [item for item in found if item.tags.get(TAG_STATUS) not in (None, REJECTED, SUPERSEDED)]
    first = min(live, key=lambda item: int(item.version), default=None)
    return None if first is None else mlflow.get_model_version(name, first.version)


def reject(mlflow: Any, version: Any, reason: str) -> None:
    """Mark a version whose stored copy is not what was judged."""
    mlflow.set_model_version_tag(version.name, version.version, TAG_REASON, reason)
    mlflow.set_model_version_tag(version.name, version.version, TAG_STATUS, REJECTED)


def give_up(mlflow: Any, version: Any, reason: str) -> None:
    """Mark a version that another one answers for."""
    mlflow.set_model_version_tag(version.name, version.version, TAG_REASON, reason)
    mlflow.set_model_version_tag(version.name, version.version, TAG_STATUS, SUPERSEDED)
