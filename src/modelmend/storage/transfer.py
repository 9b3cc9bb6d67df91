"""Fetching and putting, whatever the URI."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from modelmend.errors import StorageError
from modelmend.storage import mlflow_files, s3
from modelmend.storage.uri import NotFoundError, local_path, scheme, staged


def fetch(uri: str | Path, workdir: Path, *, tracking_uri: str | None = None) -> Path:
    """Local path of what ``uri`` names; remote content is copied below ``workdir``.

    Args:
        uri: A path, ``file://``, ``s3://bucket/key`` (an object, or a prefix as a folder), ``models:/name/version``,
            ``models:/name@alias`` or ``runs:/id/path``.
        workdir: Where remote content goes: ``<workdir>/<hash of the URI>/<last name>``.
        tracking_uri: MLflow server or database for ``models:/`` and ``runs:/``; MLflow's own setting when None.

    Returns:
        The path itself when it is local, else the copy.

    Raises:
        NotFoundError: nothing is there.
        StorageError: no access, no credentials, unreachable, or the copy is not what was announced.
    """
    text = str(uri)
    kind = scheme(text)
    if kind == "file":
        path = local_path(text)
        if not path.exists():
            raise NotFoundError("nothing is there", where=text, fix="check the path")
        return path
    name = re.sub(r"[^\w.-]+", "_", text.rstrip("/").rsplit("/", 1)[-1]) or "root"
    target = Path(workdir) / hashlib.sha256(text.encode()).hexdigest()[:12] / name
    with staged(target) as work:
        if kind == "s3":
            s3.fetch(text, work)
        else:
            mlflow_files.fetch(text, work, tracking_uri)
    return target


def put(local: Path, uri: str | Path) -> None:
    """Copy a file or folder to a path or ``s3://`` URI.

    A folder replaces what is there only if that is empty or an artifact of ours (it has a ``manifest.json``). In S3,
    the manifest is written last, so that a half-written artifact never looks whole.

    Raises:
        StorageError: not writable, or something else is in the way.
    """
    local, text = Path(local), str(uri)
    if not local.exists():
        raise NotFoundError("nothing to copy is there", where=local, fix="check the path")
    kind = scheme(text)
    if kind == "s3":
        s3.put(local, text)
    elif kind == "file":
        target = local_path(text)
        if target.is_dir() and (local.is_file() or (any(target.iterdir()) and not (target / s3.MANIFEST).is_file())):
            raise StorageError("a folder is in the way", where=text, fix="name a new or empty folder")
        with staged(target) as work:
            shutil.copytree(local, work) if local.is_dir() else shutil.copyfile(local, work)
    else:
        raise StorageError("MLflow URIs are read only here", where=text, fix="give a path or an s3:// URI")


def exists(uri: str | Path, *, tracking_uri: str | None = None) -> bool:
    """Whether something lies at ``uri``. Raises ``StorageError`` when that cannot be found out."""
    text = str(uri)
    kind = scheme(text)
    if kind == "file":
        return local_path(text).exists()
    return s3.exists(text) if kind == "s3" else mlflow_files.exists(text, tracking_uri)
