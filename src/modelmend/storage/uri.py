"""What a URI names, and destinations that are whole or absent."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from modelmend.errors import InputError, StorageError


class NotFoundError(StorageError):
    """Nothing lies at the URI."""


def join(base: str | Path, *parts: str) -> str:
    """``base`` with ``parts`` below it, for paths and URIs."""
    return "/".join([str(base).rstrip("/"), *(p.strip("/") for p in parts)])


def scheme(uri: str) -> str:
    """``"file"``, ``"s3"``, ``"models"`` or ``"runs"``. Raises ``InputError`` for any other."""
    head = uri.split(":", 1)[0].lower() if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", uri) else "file"
    if head not in {"file", "s3", "models", "runs"}:
        raise InputError(f"cannot read {head}:// URIs", where=uri, fix="use a path, file://, s3://, models:/ or runs:/")
    return head


def local_path(uri: str) -> Path:
    """The path of a ``file://`` URI or plain path."""
    return Path(unquote(urlsplit(uri).path)) if uri.lower().startswith("file:") else Path(uri).expanduser()


def check_kfp_path(path: str | Path) -> None:
    """Refuse a path that Kubeflow Pipelines would corrupt: it replaces every ``python3`` in any argument.

    Raises:
        InputError: the path or URI holds ``python3``.
    """
    if "python3" in str(path):
        raise InputError(
            "Kubeflow Pipelines rewrites every 'python3' in an argument, so this path would be corrupted",
            where=path,
            fix="move or link it to a path without 'python3'",
        )


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A path to fill beside ``target``; becomes ``target`` on success, vanishes on error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".part-", dir=target.parent))
    except OSError as error:
        raise StorageError(
            f"cannot write here: {error.strerror}", where=target, fix="choose a writable place"
        ) from error
    try:
        work = scratch / target.name
        yield work
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        work.replace(target)
    except OSError as error:
        raise StorageError(f"cannot write: {error}", where=target, fix="check free space and permissions") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
