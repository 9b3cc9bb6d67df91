"""A zip file read as bytes only: stored members, no tricks, every size bounded before anything is allocated."""

from __future__ import annotations

import io
import itertools
import os
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from modelmend.errors import ModelRefused, ModelUnsupported

MAX_BYTES = 8 << 30
"""Largest file that is read at all."""
MAX_MEMBERS = 50_000

_NAME = re.compile(r"[A-Za-z0-9_.\-]+(?:/[A-Za-z0-9_.\-]+){0,15}")
_END, _END64, _LOCATOR64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_WRITE_AGAIN = "write it again with torch.save or torch.export.save"


@dataclass(frozen=True)
class Member:
    """One stored file inside the archive, with the position of its first byte."""

    name: str
    offset: int
    size: int
    crc: int


class Archive:
    """The members of one zip archive, all under one root folder as torch writes them.

    The central directory and every local header are parsed here, strictly, and must agree. Refused with a reason:
    compressed or encrypted members, duplicate names, absolute or climbing paths, more than one root, entries that
    overlap or reach past the end, several disks, a comment, data in front of the first member.

    Args:
        path: The file.
        content: An archive inside an archive; ``path`` is then for errors only.

    Attributes:
        root: Name of the root folder.
        members: Path below the root to member.
        length: Size of the file, bytes.

    Raises:
        ModelRefused: The file is no zip archive or breaks one of the rules above.
        ModelUnsupported: It is a TorchScript archive.
    """

    def __init__(self, path: Path, content: bytes | bytearray | None = None) -> None:
        self.path = path
        self._file: BinaryIO = path.open("rb") if content is None else io.BytesIO(content)
        try:
            self.length = self._file.seek(0, os.SEEK_END)
            self.root, self.members = self._directory()
        except struct.error as error:
            self.close()
            raise self._refused("the archive is cut short", "zip") from error
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, name: str, limit: int = MAX_BYTES) -> bytearray:
        """Content of the member ``name`` (below the root), checked against its checksum.

        Args:
            name: Path below the root folder.
            limit: Refuse a longer member, bytes.
        """
        member = self.members.get(name)
        if member is None:
            raise self._refused("a part of the archive is missing", name)
        if member.size > limit:
            raise self._refused(f"a part is larger than allowed ({member.size} > {limit} bytes)", name)
        self._file.seek(member.offset)
        content = bytearray(self._file.read(member.size))
        if len(content) != member.size:
            raise self._refused("the archive is cut short", name)
        if zlib.crc32(content) != member.crc:
            raise self._refused("the content does not match its checksum", name)
        return content

    def _refused(self, message: str, field: str, fix: str = _WRITE_AGAIN) -> ModelRefused:
        return ModelRefused(message, where=self.path, field=field[:200], fix=fix)

    def _bytes(self, offset: int, size: int) -> bytes:
        if not 0 <= offset <= offset + size <= self.length:
            raise self._refused("the archive points past its own end", "zip")
        self._file.seek(offset)
        return self._file.read(size)

    def _end(self) -> tuple[int, int, int]:
        """``(entries, directory offset, directory size)`` from the end record, 32 or 64 bit."""
        if self.length > MAX_BYTES:
            raise self._refused(f"the file is larger than {MAX_BYTES >> 30} GiB", "zip", "split or shrink the model")
        if self.length < 22:
            raise self._refused("the file is no zip archive", "zip")
        at = self.length - 22
        end = self._bytes(at, 22)
        if end[:4] != _END:
            raise self._refused("the file is no zip archive, or something follows its end", "zip")
        disk, first, here, entries, size, offset, comment = struct.unpack("<4xHHHHIIH", end)
        if disk or first or here != entries or comment:
            raise self._refused("the archive spans disks or carries a comment", "zip")
        if self.length >= 42 and self._bytes(at - 20, 4) == _LOCATOR64:
            (at,) = struct.unpack("<8xQ4x", self._bytes(at - 20, 20))
            end = self._bytes(at, 56)
            if end[:4] != _END64:
                raise self._refused("the 64-bit end record is damaged", "zip")
            here, entries, size, offset = struct.unpack("<24xQQQQ", end)
        if here != entries or entries > MAX_MEMBERS or size > entries * 400:
            raise self._refused(f"the archive lists too many members ({entries})", "zip")
        if offset + size != at:
            raise self._refused("the directory of the archive is not where it must be", "zip")
        return entries, offset, size

    def _directory(self) -> tuple[str, dict[str, Member]]:
        entries, start, size = self._end()
        table, at = self._bytes(start, size), 0
        spans: list[tuple[int, int]] = []
        members: dict[str, Member] = {}
        roots: set[str] = set()
        for _ in range(entries):
            fixed = struct.unpack_from("<4sHHHHHHIIIHHHHHII", table, at)
            signature, flags, method, crc, packed, plain, n_name, n_extra, n_comment = (
                fixed[i] for i in (0, 3, 4, 7, 8, 9, 10, 11, 12)
            )
            header = fixed[16]
            raw = table[at + 46 : at + 46 + n_name]
            extra = table[at + 46 + n_name : at + 46 + n_name + n_extra]
            at += 46 + n_name + n_extra + n_comment
            name = raw.decode("ascii", "replace")
            if signature != b"PK\1\2" or at > size:
                raise self._refused("the directory of the archive is damaged", "zip")
            if name.partition("/")[2].startswith("code/"):
                raise ModelUnsupported(
                    "this is a TorchScript archive; it holds code, and torch has no safe way to read it",
                    where=self.path,
                    field="code",
                    fix="export the model with torch.export.export, or save its state_dict",
                )
            if method != 0 or flags & ~0x0808:
                raise self._refused("a member is compressed or encrypted; torch stores its members plain", name)
            packed, plain, header = _wide(extra, packed, plain, header)
            if packed != plain:
                raise self._refused("a stored member has two different sizes", name)
            if not _NAME.fullmatch(name) or ".." in name.split("/") or "." in name.split("/"):
                raise self._refused("a member has a name that torch never writes", name)
            root, _, below = name.partition("/")
            if not below or below in members:
                raise self._refused("two members share a name" if below else "a member lies outside the root", name)
            offset = self._data_offset(header, raw, name)
            if offset + plain > start:
                raise self._refused("a member reaches past the end of the data", name)
            roots.add(root)
            spans.append((header, offset + plain))
            members[below] = Member(name, offset, plain, crc)
        if at != size or len(roots) != 1:
            raise self._refused("the archive has no single root folder", "zip")
        self._no_overlap(sorted(spans))
        return roots.pop(), members

    def _data_offset(self, header: int, raw: bytes, name: str) -> int:
        local = self._bytes(header, 30)
        signature, flags, method, n_name, n_extra = (struct.unpack("<4sHHHHHIIIHH", local)[i] for i in (0, 2, 3, 9, 10))
        if signature != b"PK\3\4" or method != 0 or flags & ~0x0808 or self._bytes(header + 30, n_name) != raw:
            raise self._refused("a member's own header contradicts the directory", name)
        return header + 30 + int(n_name) + int(n_extra)

    def _no_overlap(self, spans: list[tuple[int, int]]) -> None:
        if spans[0][0] != 0:
            raise self._refused("there is data in front of the first member", "zip")
        for (_, end), (following, _) in itertools.pairwise(spans):
            if end > following:
                raise self._refused("members overlap", "zip")


def _wide(extra: bytes, packed: int, plain: int, header: int) -> tuple[int, int, int]:
    """Replace the 32-bit fields that say *see the 64-bit extra field* by what stands there."""
    values = {"plain": plain, "packed": packed, "header": header}
    missing = [key for key, value in values.items() if value == 0xFFFFFFFF]
    at = 0
    while missing and at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        if tag == 1:
            for key, value in zip(missing, struct.unpack_from(f"<{len(missing)}Q", extra, at + 4), strict=True):
                values[key] = value
            break
        at += 4 + length
    return values["packed"], values["plain"], values["header"]
