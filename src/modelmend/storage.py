"""URI to local path and back."""

from __future__ import annotations

from pathlib import Path

from modelmend.errors import StorageError


class NotFoundError(StorageError):
    """Nothing lies at the URI."""


def fetch(uri: str | Path, workdir: Path) -> Path:
    """Local path of what ``uri`` names."""
    path = Path(str(uri).removeprefix("file://"))
    if not path.exists():
        raise NotFoundError("nothing is there", where=uri, fix="check the path")
    return path
