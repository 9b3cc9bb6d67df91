"""What ``torch.save`` and ``pickle.dump`` write, in every container since 2017, read as data."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from modelmend.errors import ModelRefused, ModelUnsupported
from modelmend.model.archive import MAX_BYTES, Archive
from modelmend.model.pickles import Global, Pickle, read_pickle
from modelmend.model.rawtensor import tensor_from

MAX_PICKLE = 256 << 20
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_STORAGES: dict[str, torch.dtype | None] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": None,
}


Bytes = bytearray | memoryview
"""Views of a storage share its memory: thousands of them over one large block cost nothing."""


@dataclass(eq=False)
class Storage:
    """A block of bytes that tensors of a pickle look into; read when first needed.

    Attributes:
        dtype: Element type; ``None`` where the tensor says it.
        read: Gives the bytes.
    """

    dtype: torch.dtype | None
    read: Callable[[], Bytes]


@dataclass
class TorchFile:
    """A file read as data.

    Attributes:
        kind: ``zip``, ``legacy``, ``tar`` or ``pickle``.
        value: Plain values, `Stub`, `Global`, `Storage` and, from tar files, tensors.
        names: Every class or function that the file names.
        called: Those that the stock loader would call.
        members: Parts of the archive that are neither pickle nor storage.
    """

    kind: str
    value: Any
    names: dict[Global, None]
    called: dict[Global, None]
    members: list[str] = field(default_factory=list)


def read_torch_file(path: Path) -> TorchFile:
    """Read any file of ``torch.save`` or ``pickle.dump``; raises ``ModelRefused`` or ``ModelUnsupported``."""
    with path.open("rb") as stream:
        head = stream.read(512)
        stream.seek(0)
        if head[:4] == b"PK\3\4":
            return _read_zip(Archive(path))
        if head[257:262] == b"ustar":
            return _read_tar(path, stream)
        return _read_stream(stream, path, path.stat().st_size)


def read_torch_bytes(content: bytearray, where: str) -> TorchFile:
    """A zip of ``torch.save`` that lies inside another file."""
    return _read_zip(Archive(Path(where), content))


def storage_dtype(kind: object) -> torch.dtype | None:
    """Element type of a storage class; raises ``ValueError`` for one that is not known."""
    if not isinstance(kind, Global) or kind.name not in _STORAGES or kind.module.split(".")[0] != "torch":
        raise ValueError(f"unknown storage {kind}")
    return _STORAGES[kind.name]


def _read_zip(opened: Archive) -> TorchFile:
    path = opened.path
    with opened as archive:
        if "data.pkl" not in archive.members:
            raise ModelRefused("the archive holds no model that is known", where=path, field="data.pkl")
        if "byteorder" in archive.members and bytes(archive.read("byteorder", 16)) != b"little":
            raise ModelUnsupported("the tensors are big-endian", where=path, field="byteorder")
        cache: dict[str, bytearray] = {}
        for name in archive.members:
            if name.startswith("data/") and name[5:].isdecimal():
                cache[name[5:]] = archive.read(name)

        def persistent(identity: Any) -> Storage:
            word, kind, key, _, _ = identity
            if word != "storage" or not isinstance(key, str) or key not in cache:
                raise ValueError("an unknown storage")
            return Storage(storage_dtype(kind), lambda: cache[key])

        found = read_pickle(io.BytesIO(archive.read("data.pkl", MAX_PICKLE)), path, persistent, "data.pkl")
        known = {"data.pkl", "byteorder", "version", ".data/serialization_id", ".format_version", ".storage_alignment"}
        other = [n for n in archive.members if n not in known and not (n.startswith("data/") and n[5:] in cache)]
        return TorchFile("zip", found.value, found.names, found.called, other)


def _read_stream(stream: BinaryIO, where: object, length: int) -> TorchFile:
    """The form before torch 1.6 (header pickles, object, storages), or a bare pickle."""
    if length > MAX_BYTES:
        raise ModelRefused(f"the file is larger than {MAX_BYTES >> 30} GiB", where=where)
    first = read_pickle(stream, where, None)
    if first.value != _MAGIC:
        return TorchFile("pickle", first.value, first.names, first.called)
    storages: dict[str, tuple[Storage, list[bytearray]]] = {}

    def persistent(identity: Any) -> Any:
        word, *data = identity
        if word == "module":
            return data[0]
        kind, key, _, _, view = data
        if word != "storage" or not isinstance(key, str):
            raise ValueError("an unknown storage")
        if key not in storages:
            content: list[bytearray] = []
            storages[key] = (Storage(storage_dtype(kind), lambda: content[0]), content)
        whole = storages[key][0]
        if view is None:
            return whole
        _, offset, size = (int(v) if i else v for i, v in enumerate(view))
        item = (whole.dtype or torch.uint8).itemsize
        return Storage(whole.dtype, lambda: memoryview(whole.read())[offset * item : (offset + size) * item])

    header = [read_pickle(stream, where, None) for _ in range(2)]
    if header[0].value != _PROTOCOL:
        raise ModelRefused("an unknown version of the torch format", where=where)
    found = read_pickle(stream, where, persistent)
    keys = read_pickle(stream, where, None)
    for key in keys.value if isinstance(keys.value, list) else []:
        if not isinstance(key, str) or key not in storages or storages[key][1]:
            raise ModelRefused("a storage that nothing uses, or twice", where=where, field=str(key)[:40])
        item = (storages[key][0].dtype or torch.uint8).itemsize
        storages[key][1].append(_sized_block(stream, item, length, where))
    missing = [key for key, (_, content) in storages.items() if not content]
    if missing:
        raise ModelRefused("the file is cut short: a storage is missing", where=where, field=missing[0][:40])
    everything = [first, *header, found, keys]
    return TorchFile("legacy", found.value, _together(everything, "names"), _together(everything, "called"))


def _together(pickles: list[Pickle], attribute: str) -> dict[Global, None]:
    return {name: None for found in pickles for name in getattr(found, attribute)}


def _sized_block(stream: BinaryIO, item: int, length: int, where: object) -> bytearray:
    """Eight bytes of count, then as many elements."""
    head = stream.read(8)
    count = struct.unpack("<q", head)[0] if len(head) == 8 else -1
    if not 0 <= count * item <= length:
        raise ModelRefused("a storage is longer than the file", where=where)
    content = bytearray(stream.read(count * item))
    if len(content) != count * item:
        raise ModelRefused("the file is cut short", where=where)
    return content


def _read_tar(path: Path, stream: BinaryIO) -> TorchFile:
    """The form of torch 0.1 (2017): ``storages``, ``tensors`` and ``pickle`` in a tar file; nothing is extracted."""
    length = path.stat().st_size
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            entries = {m.name.removeprefix("./"): m for _, m in zip(range(64), tar, strict=False) if m.isfile()}
            parts = {n: tar.extractfile(entries[n]) for n in ("storages", "tensors", "pickle") if n in entries}
            blobs = {name: part.read(length) for name, part in parts.items() if part is not None}
    except (tarfile.TarError, ValueError, OSError, EOFError, RecursionError) as error:
        raise ModelRefused(f"the tar file is damaged: {str(error)[:120]}", where=path) from error
    if len(blobs) != 3:
        raise ModelRefused("a tar file that is no torch model", where=path)
    pickles: list[Pickle] = []

    def load(source: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Any:
        pickles.append(read_pickle(source, path, persistent))
        return pickles[-1].value

    try:
        storages = _tar_storages(io.BytesIO(blobs["storages"]), load, length, path)
        tensors = _tar_tensors(io.BytesIO(blobs["tensors"]), load, storages, 4 * length)
    except (ValueError, TypeError, KeyError, struct.error) as error:
        raise ModelRefused(f"the tar file is damaged: {str(error)[:120]}", where=path) from error

    def persistent(identity: Any) -> Any:
        return identity[0] if isinstance(identity, tuple) else tensors[int(identity)]

    value = load(io.BytesIO(blobs["pickle"]), persistent)
    other = [name for name in entries if name not in ("storages", "tensors", "pickle", "sys_info")]
    return TorchFile("tar", value, _together(pickles, "names"), _together(pickles, "called"), other)


def _tar_storages(
    source: BinaryIO, load: Callable[[BinaryIO], Any], length: int, where: object
) -> dict[int, tuple[Bytes, torch.dtype]]:
    storages: dict[int, tuple[Bytes, torch.dtype]] = {}
    for _ in range(_count(load(source))):
        key, _, kind = load(source)
        dtype = storage_dtype(kind) or torch.uint8
        storages[int(key)] = _sized_block(source, dtype.itemsize, length, where), dtype
    for target, root, offset, count in load(source):
        raw, dtype = storages[int(root)]
        storages[int(target)] = memoryview(raw)[offset * dtype.itemsize : (offset + count) * dtype.itemsize], dtype
    return storages


def _tar_tensors(
    source: BinaryIO,
    load: Callable[[BinaryIO], Any],
    storages: dict[int, tuple[Bytes, torch.dtype]],
    budget: int,
) -> dict[int, Tensor]:
    tensors: dict[int, Tensor] = {}
    for _ in range(_count(load(source))):
        key, storage, _ = load(source)
        (dims,) = struct.unpack("<i4x", source.read(8))
        if not 0 <= dims <= 8:
            raise ValueError("too many axes")
        numbers = struct.unpack(f"<{2 * dims + 1}q", source.read(8 * (2 * dims + 1)))
        raw, dtype = storages[int(storage)]
        tensors[int(key)] = tensor_from(raw, dtype, numbers[:dims], numbers[dims:-1], numbers[-1])
        budget -= tensors[int(key)].numel() * dtype.itemsize
        if budget < 0:
            raise ValueError("the tensors are far larger than the file")
    return tensors


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= 100_000:
        raise ValueError("a count is no bounded integer")
    return value


def nested_stream(content: object, where: object) -> Any:
    """The value inside ``torch.storage._load_from_bytes(content)``, which a bare pickle of a tensor holds."""
    if not isinstance(content, (bytes, bytearray)):
        raise ValueError("a nested storage that is no bytes")
    return _read_stream(io.BytesIO(content), where, len(content)).value
