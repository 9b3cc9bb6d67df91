from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from modelmend.errors import ModelRefused
from modelmend.model.archive import Archive


def _zip(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return path


def test_members_are_read_below_their_root(tmp_path: Path) -> None:
    with Archive(_zip(tmp_path / "a.zip", {"r/a": b"1", "r/b/c": b"22"})) as archive:
        assert (archive.root, sorted(archive.members)) == ("r", ["a", "b/c"])
        assert archive.read("b/c") == b"22"


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"r/../../etc/cron": b"x"}, "never writes"),
        ({"/r/a": b"x"}, "never writes"),
        ({"r/./a": b"x"}, "never writes"),
        ({"r\\a": b"x"}, "never writes"),
        ({"r/a b": b"x"}, "never writes"),
        ({"r/\u202etxt.exe": b"x"}, "never writes|compressed"),
        ({"a": b"x"}, "outside the root"),
        ({"r/a": b"x", "q/b": b"y"}, "single root"),
    ],
)
def test_names_that_torch_never_writes_are_refused(members: dict[str, bytes], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=words):
        Archive(_zip(tmp_path / "a.zip", members))


def test_duplicate_names_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr("r/a", b"first")
        out.writestr("r/a", b"second")
    with pytest.raises(ModelRefused, match="share a name"):
        Archive(path)


def test_compression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="compressed"):
        Archive(_zip(tmp_path / "a.zip", {"r/a": bytes(5 << 20)}, zipfile.ZIP_DEFLATED))


def _bytes(tmp_path: Path) -> bytearray:
    return bytearray(_zip(tmp_path / "a.zip", {"r/a": b"1111", "r/b": b"2222"}).read_bytes())


def _central(data: bytearray, index: int = 0) -> int:
    at = -1
    for _ in range(index + 1):
        at = data.index(b"PK\1\2", at + 1)
    return at


def _overlap(data: bytearray) -> bytearray:
    struct.pack_into("<I", data, _central(data, 1) + 42, 0)
    return data


def _claimed_size(data: bytearray) -> bytearray:
    struct.pack_into("<II", data, _central(data) + 20, 1 << 31, 1 << 31)
    return data


def _encrypted(data: bytearray) -> bytearray:
    struct.pack_into("<H", data, _central(data) + 8, 1)
    return data


def _different_local_name(data: bytearray) -> bytearray:
    data[30:33] = b"r/z"
    return data


def _count(data: bytearray) -> bytearray:
    struct.pack_into("<HH", data, len(data) - 14, 60_000, 60_000)
    return data


def _wide_size(data: bytearray) -> bytearray:
    """A 64-bit extra field that claims an exabyte."""
    at = _central(data)
    name = bytes(data[at + 46 : at + 49])
    struct.pack_into("<II", data, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", data, at + 30, 20)
    extra = struct.pack("<HHQQ", 1, 16, 1 << 60, 1 << 60)
    data[at + 46 : at + 49] = name + extra
    end = data.index(b"PK\5\6")
    size = struct.unpack_from("<I", data, end + 12)[0]
    struct.pack_into("<I", data, end + 12, size + len(extra))
    return data


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d[:-30], "no zip archive|cut short"),
        (lambda d: d[: len(d) // 2], "no zip archive"),
        (lambda d: d + b"trailing", "follows its end"),
        (lambda d: b"#!/bin/sh\n" + d, "directory of the archive|front"),
        (_overlap, "contradicts|overlap"),
        (_claimed_size, "past the end"),
        (_encrypted, "encrypted"),
        (_different_local_name, "contradicts"),
        (_count, "too many members|cut short|damaged"),
        (_wide_size, "past the end"),
        (lambda d: d[:0], "no zip archive"),
    ],
)
def test_tricks_with_the_directory_are_refused(
    damage: Callable[[bytearray], bytes], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.zip"
    path.write_bytes(damage(_bytes(tmp_path)))
    with pytest.raises(ModelRefused, match=words):
        Archive(path)


def test_content_that_does_not_match_its_checksum_is_refused(tmp_path: Path) -> None:
    data = _bytes(tmp_path)
    data[data.index(b"1111")] ^= 1
    path = tmp_path / "bad.zip"
    path.write_bytes(data)
    with Archive(path) as archive, pytest.raises(ModelRefused, match="checksum"):
        archive.read("a")


def test_member_larger_than_the_readers_limit_is_refused(tmp_path: Path) -> None:
    with Archive(_zip(tmp_path / "a.zip", {"r/a": b"aaaa"})) as archive, pytest.raises(ModelRefused, match="larger"):
        archive.read("a", 3)


def test_two_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """A quoted-overlap bomb: the second entry's data lies inside the first's."""
    inner = struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, 0, 0, 0, 33, zlib.crc32(b"bbbb"), 4, 4, 3, 0) + b"r/bbbbb"
    data = bytearray(_zip(tmp_path / "a.zip", {"r/a": inner, "r/b": b"bbbb"}).read_bytes())
    struct.pack_into("<I", data, _central(data, 1) + 42, data.index(inner))
    path = tmp_path / "bad.zip"
    path.write_bytes(data)
    with pytest.raises(ModelRefused, match="overlap"):
        Archive(path)
