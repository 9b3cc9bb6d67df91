"""``models:/`` and ``runs:/`` through MLflow's artifact download: files are copied, no flavor is ever loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelmend.errors import InputError, ModelmendError, StorageError
from modelmend.storage.uri import NotFoundError, join, scheme

_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def fetch(uri: str, work: Path, tracking_uri: str | None) -> None:
    """Copy the artifact's files to ``work``; no code of the model runs."""
    with _errors(uri):
        location = _location(uri, tracking_uri)
        import mlflow.artifacts

        scratch = work.parent / "download"
        got = Path(mlflow.artifacts.download_artifacts(location, dst_path=str(scratch), tracking_uri=tracking_uri))
        (scratch if got.resolve() == scratch.resolve() else got).rename(work)


def exists(uri: str, tracking_uri: str | None) -> bool:
    """Whether the model version or the run's artifact is known."""
    try:
        with _errors(uri):
            _location(uri, tracking_uri)
    except NotFoundError:
        return False
    return True


def _location(uri: str, tracking_uri: str | None) -> str:
    """Where the files lie: resolved against ``tracking_uri``, never against a process-wide registry."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
    head, _, rest = uri.split(":/", 1)[1].strip("/").partition("/")
    if scheme(uri) == "runs":
        if not rest:
            raise InputError("the URI names no artifact of the run", where=uri, fix="write runs:/<id>/<path>")
        root = client.get_run(head).info.artifact_uri
        if not client.list_artifacts(head, rest) and not _listed(client, head, rest):
            raise NotFoundError("the run has no such artifact", where=uri, fix="check the path in the run")
        return join(root, rest)
    if "@" in head:
        name, alias = head.split("@", 1)
        version = client.get_model_version_by_alias(name, alias).version
    elif head.startswith("m-") and not rest:
        return str(client.get_logged_model(head).artifact_location)
    else:
        name, (version, _, rest) = head, rest.partition("/")
    if not str(version).isdigit():
        fix = "write models:/<name>/<version number> or models:/<name>@<alias>"
        raise InputError("the URI names no model version", where=uri, fix=fix)
    location = client.get_model_version_download_uri(name, str(version))
    if location.startswith("models:/"):
        location = client.get_logged_model(location.removeprefix("models:/").strip("/")).artifact_location
    return join(location, rest) if rest else str(location)


def _listed(client: Any, run: str, path: str) -> bool:
    parent = path.rpartition("/")[0]
    return any(item.path == path for item in client.list_artifacts(run, parent or None))


@contextlib.contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turn MLflow's errors into ours, within a bounded time (the user's own settings win)."""
    added = {name: value for name, value in _PATIENCE.items() if name not in os.environ}
    os.environ.update(added)
    try:
        from mlflow.exceptions import MlflowException

        yield
    except ImportError as error:
        raise StorageError(
            f"{scheme(uri)}:/ needs MLflow", where=uri, fix="pip install 'modelmend[registry]'"
        ) from error
    except MlflowException as error:
        text = str(error).splitlines()[0][:300]
        if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" or "not found" in text.lower():
            raise NotFoundError(
                f"MLflow has none: {text}", where=uri, fix="check name, version and tracking URI"
            ) from error
        fix = "check that the tracking server runs and MLFLOW_TRACKING_URI names it"
        raise StorageError(f"MLflow cannot give it: {text}", where=uri, fix=fix) from error
    except ModelmendError:
        raise
    except Exception as error:  # requests, boto3 and database errors come as they are
        fix = "check the tracking URI and the artifact store behind it"
        raise StorageError(f"MLflow cannot give it: {str(error)[:300]}", where=uri, fix=fix) from error
    finally:
        for name in added:
            os.environ.pop(name, None)
