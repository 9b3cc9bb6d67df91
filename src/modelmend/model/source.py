"""Which file of what the user names is the model, and of which kind; decided by content, never by what it says."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelmend.errors import InputError, ModelRefused
from modelmend.model.archive import Archive
from modelmend.model.pt2 import MODEL

Kind = Literal["pt2", "safetensors", "torch"]

MODEL_FILES = (
    "data/model.pt2",
    "data/model.pth",
    "model.pt2",
    "model.pth",
    "model.safetensors",
    "data/model.safetensors",
)
"""Where MLflow and people put the model inside a directory."""


_PICKLES = frozenset((".pkl", ".pickle", ".pth", ".pt", ".ckpt", ".bin"))
"""Endings whose users hand any content to an unpickler; pickles of protocol 0 and 1 have no mark of their own."""


@dataclass(frozen=True)
class Source:
    """The one file to read.

    Attributes:
        file: Its path.
        kind: ``pt2``, ``safetensors`` or ``torch`` (anything of ``torch.save`` and ``pickle.dump``).
        directory: The MLflow model directory around it, if there is one.
    """

    file: Path
    kind: Kind
    directory: Path | None = None


def find(path: str | Path) -> Source:
    """The model file of a path; in a directory nothing but the model file is looked at.

    Raises:
        InputError: Nothing there, or nothing that is a model.
        ModelRefused: Two models, so that another loader might take the other one, or a link that leads outside.
    """
    path = Path(path)
    if not path.exists():
        raise InputError("there is no such file", where=path, fix="check the path")
    if not path.is_dir():
        return Source(path, kind_of(path))
    found = [path / name for name in MODEL_FILES if (path / name).is_file()]
    if not found:
        raise InputError(
            "the directory holds no model file", where=path, fix=f"expected one of {', '.join(MODEL_FILES[:4])}"
        )
    if len(found) > 1:
        raise ModelRefused(
            "the directory holds more than one model; loaders would disagree on which one counts", where=path,
            field=", ".join(str(f.relative_to(path)) for f in found), fix="keep one",
        )  # fmt: skip
    if not found[0].resolve().is_relative_to(path.resolve()):
        raise ModelRefused("the model file is a link that leads out of the directory", where=found[0])
    return Source(found[0], kind_of(found[0]), path)


def kind_of(file: Path) -> Kind:
    """Kind of a file by its first bytes; raises ``InputError`` when it is no model."""
    if not file.is_file():
        raise InputError("this is no regular file", where=file, fix="give a model file or a directory")
    try:
        with file.open("rb") as stream:
            head = stream.read(512)
        size = file.stat().st_size
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=file) from error
    if head[:4] == b"PK\3\4":
        with Archive(file) as archive:
            return "pt2" if MODEL in archive.members else "torch"
    if len(head) > 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= size:
        return "safetensors"
    if head[257:262] == b"ustar" or head[:1] == b"\x80":
        return "torch"
    if not head:
        raise InputError("the file is empty", where=file)
    if file.suffix in _PICKLES:
        return "torch"
    raise InputError(
        "this is no model file that is known", where=file,
        fix="give a .pt2 (torch.export.save), .safetensors, .pth or .pt file, or an MLflow model directory",
    )  # fmt: skip
