"""Reaching MLflow: a client that gives up soon, errors that name the server and hide its password."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modelmend.errors import ModelmendError, RegistryError

QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""Set unless the user did: MLflow's own defaults retry an unreachable server for minutes."""

EXPERIMENT = "modelmend"


def tracking_uri_or_default(tracking_uri: str | None) -> str:
    """The URI given, else ``MLFLOW_TRACKING_URI``; raises ``RegistryError`` when neither names a server."""
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise RegistryError(
            "no MLflow server is named",
            field="tracking_uri",
            fix="give --tracking-uri (such as sqlite:///mlflow.db) or set MLFLOW_TRACKING_URI",
        )
    return uri


def redacted(uri: str) -> str:
    """The URI without user name, password and query."""
    return re.sub(r"(?<=://)[^/@\s]*@", "", uri).split("?")[0]


@contextmanager
def talking_to(uri: str) -> Iterator[None]:
    """Bounded retries inside; whatever MLflow, its HTTP library or its database raises leaves as ``RegistryError``."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    try:
        yield
    except ModelmendError:
        raise
    except Exception as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        raise RegistryError(
            f"MLflow refused or cannot be reached: {redacted(text[0])[:500]}",
            where=redacted(uri),
            fix="check that the server runs, the URI and the credentials; then run the same command again",
        ) from error


def client(uri: str) -> Any:
    """An ``MlflowClient`` for tracking and registry at ``uri``; use inside ``talking_to``."""
    from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    _make_database(uri)
    return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


def experiment_id(mlflow_client: Any, uri: str) -> str:
    """Id of the experiment that runs go to: of the environment, else ``modelmend``, made if it is not there.

    With a SQLite database the artifacts lie beside the database file, not in the current directory.
    """
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = mlflow_client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    file = _database_file(uri)
    location = None if file is None else (file.parent / "mlflow-artifacts" / name).as_uri()
    return str(mlflow_client.create_experiment(name, artifact_location=location))


def download(source: str, folder: Path, uri: str) -> Path:
    """Copy everything under an artifact URI into ``folder``; returns where it lies."""
    import mlflow.artifacts

    folder.mkdir(parents=True, exist_ok=True)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=str(folder), tracking_uri=uri))


def _database_file(uri: str) -> Path | None:
    match = re.fullmatch(r"sqlite:///(?P<path>[^?]+)(\?.*)?", uri)
    return None if match is None else Path(match["path"]).absolute()


def _make_database(uri: str) -> None:
    """Make a SQLite database aside and move it in whole.

    MLflow creates its tables in many small migrations; killed between two of them, the database can never be opened
    again ("table ... already exists").
    """
    file = _database_file(uri)
    if file is None or file.exists():
        return
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as aside:
        whole = Path(aside) / file.name
        MlflowClient(tracking_uri=f"sqlite:///{whole}").search_experiments(max_results=1)
        with suppress(FileExistsError):
            _move_in(whole, file)


def _move_in(whole: Path, file: Path) -> None:
    """A hard link never overwrites what another process made meanwhile; where there are none, a rename has to do."""
    try:
        os.link(whole, file)
    except FileExistsError:
        raise
    except OSError:
        whole.replace(file)
