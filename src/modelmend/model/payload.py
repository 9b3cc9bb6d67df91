"""The tensors of a ``.pt2`` archive: raw bytes and a description of each, checked against each other."""

from __future__ import annotations

import json
import keyword
import re
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from modelmend.errors import ModelRefused
from modelmend.model.archive import Archive
from modelmend.model.arguments import DTYPES
from modelmend.model.rawtensor import tensor_from

MAX_JSON = 128 << 20
MAX_JSON_VALUES = 8_000_000
"""Bound on the values of one JSON file; two bytes of it can cost sixty of memory."""

_FQN = re.compile(r"[A-Za-z0-9_\-]{1,128}(?:\.[A-Za-z0-9_\-]{1,128}){0,31}")
_RECORD = re.compile(r"(?:weight|tensor)_\d{1,6}")


def parse_json(archive: Archive, name: str) -> dict[str, Any]:
    """A JSON object out of the archive; bounded length and nesting, no repeated keys."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key appears twice")
        return made

    try:
        content = archive.read(name, MAX_JSON)
        if sum(content.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_VALUES:
            raise ValueError("it holds too many values")
        text = content.decode("utf-8")
        del content
        parsed = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"not readable as JSON: {error}", where=archive.path, field=name) from error
    if not isinstance(parsed, dict):
        raise ModelRefused("a JSON object was expected", where=archive.path, field=name)
    return parsed


def valid_fqn(name: object) -> bool:
    """Whether a parameter or module path can be rebuilt: plain parts, none that Python or torch reserves."""
    if not isinstance(name, str) or not _FQN.fullmatch(name):
        return False
    parts = name.split(".")
    return not any(keyword.iskeyword(p) for p in parts) and not hasattr(GraphModule, parts[0])


def read_tensors(archive: Archive, folder: str) -> dict[str, tuple[Tensor, bool]]:
    """All tensors of ``data/weights`` or ``data/constants``.

    Returns:
        Dotted name to (tensor of its own memory, is a parameter). Names that share a record are separate copies.

    Raises:
        ModelRefused: A record is pickled, a name, shape or type is not allowed, a view leaves its record, or the
            tensors together are larger than the reader's bound.
    """
    config = f"data/{folder}/model_{folder}_config.json"
    entries = parse_json(archive, config).get("config")
    if not isinstance(entries, dict):
        raise ModelRefused("the list of tensors is missing", where=archive.path, field=config)
    out: dict[str, tuple[Tensor, bool]] = {}
    records: dict[str, bytearray] = {}
    total = 0
    for name, entry in entries.items():
        if not valid_fqn(name):
            raise ModelRefused("a tensor has a name that cannot be used", where=archive.path, field=name[:200])
        try:
            tensor = _tensor(archive, f"data/{folder}/", entry, records)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise ModelRefused(f"damaged description of a tensor: {error}", where=archive.path, field=name) from error
        except ModelRefused as error:
            error.field = name
            raise
        total += tensor.numel() * tensor.element_size()
        if total > 4 * archive.length + (1 << 20):
            raise ModelRefused("the tensors are far larger than the file", where=archive.path, field=name)
        out[name] = (tensor, entry.get("is_param") is True)
    return out


def _tensor(archive: Archive, folder: str, entry: dict[str, Any], records: dict[str, bytearray]) -> Tensor:
    if entry["use_pickle"] is not False:
        raise ModelRefused(
            "a tensor is stored as a pickle, which could run code",
            where=archive.path,
            fix="save it again with torch 2.13",
        )
    record, meta = entry["path_name"], entry["tensor_meta"]
    if not _RECORD.fullmatch(record):
        raise ValueError("odd record name")
    dtype = DTYPES.get(meta["dtype"])
    if dtype is None or meta["layout"] != 7:
        raise ModelRefused(
            "only dense tensors of common element types are read (float16, bfloat16, float32, float64, integers, bool)",
            where=archive.path,
            fix="convert the model, for example with model.float()",
        )
    sizes, strides = ([v["as_int"] for v in meta[key]] for key in ("sizes", "strides"))
    if record not in records:
        records[record] = archive.read(folder + record)
    return tensor_from(records[record], dtype, sizes, strides, meta["storage_offset"]["as_int"])
