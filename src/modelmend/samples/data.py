"""Clean labelled samples in memory, with an identity that depends on content alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelmend.errors import SamplesError

_TENSORS = "samples.safetensors"
_NAMES = "samples.json"


@dataclass(frozen=True, eq=False)
class Samples:
    """Clean labelled samples.

    Attributes:
        x: ``(N, C, H, W)`` float32 in 0..1 for images; ``(N, ...)`` as stored for ``kind="raw"``.
        y: ``(N,)`` int64 class numbers.
        ids: One per sample, the hash of its content; equal content has an equal id.
        groups: ``(N,)`` int64; samples of one group (a track, near-duplicates) must stay in one split.
        source: Where they were read from.
        classes: Class names in label order, empty when the source has none.
        kind: ``"image"`` or ``"raw"``.
    """

    x: Tensor
    y: Tensor
    ids: tuple[str, ...]
    groups: Tensor
    source: str
    classes: tuple[str, ...] = ()
    kind: str = "image"

    def __post_init__(self) -> None:
        sizes = {"x": len(self.x), "y": len(self.y), "ids": len(self.ids), "groups": len(self.groups)}
        if len(set(sizes.values())) != 1:
            raise SamplesError(f"parts of the samples differ in number: {sizes}", where=self.source)

    def __len__(self) -> int:
        return len(self.ids)

    def subset(self, index: Tensor | Sequence[int]) -> Samples:
        """The samples at ``index`` (int64 positions), in that order."""
        at = torch.as_tensor(index, dtype=torch.long)
        ids = tuple(self.ids[i] for i in at.tolist())
        return Samples(self.x[at], self.y[at], ids, self.groups[at], self.source, self.classes, self.kind)

    def join(self, other: Samples) -> Samples:
        """These samples, then the other ones; the other's groups are kept apart from these."""
        if self.x.shape[1:] != other.x.shape[1:]:
            raise SamplesError(
                f"samples of shapes {tuple(self.x.shape[1:])} and {tuple(other.x.shape[1:])} cannot be joined",
                where=f"{self.source} + {other.source}",
            )
        shift = int(self.groups.max()) + 1 if len(self) else 0
        return Samples(
            torch.cat([self.x, other.x]),
            torch.cat([self.y, other.y]),
            self.ids + other.ids,
            torch.cat([self.groups, other.groups + shift]),
            f"{self.source} + {other.source}",
            self.classes or other.classes,
            self.kind,
        )

    def hash(self) -> str:
        """``sha256:<hex>`` over shape, content ids, labels and groups, in order; independent of their source."""
        digest = hashlib.sha256(f"{tuple(self.x.shape)} {self.x.dtype}\n".encode())
        for name, label, group in zip(self.ids, self.y.tolist(), self.groups.tolist(), strict=True):
            digest.update(f"{name} {label} {group}\n".encode())
        return f"sha256:{digest.hexdigest()}"

    def save(self, folder: Path) -> None:
        """Write into ``folder``; images that are exact bytes over 255 are stored as bytes."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {"x": _compact(self.x), "y": self.y.contiguous(), "groups": self.groups.contiguous()}, folder / _TENSORS
        )
        names: dict[str, Any] = {
            "ids": list(self.ids),
            "source": self.source,
            "classes": list(self.classes),
            "kind": self.kind,
        }
        (folder / _NAMES).write_text(json.dumps(names) + "\n", encoding="utf-8")

    @staticmethod
    def load(folder: Path) -> Samples:
        """Read what ``save`` wrote. Raises ``SamplesError`` when it is missing or damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(folder / _TENSORS)
            names = json.loads((folder / _NAMES).read_text(encoding="utf-8"))
            x = tensors["x"]
            if x.dtype == torch.uint8:
                x = bytes_to_unit(x)
            classes = tuple(names["classes"])
            return Samples(
                x, tensors["y"], tuple(names["ids"]), tensors["groups"], names["source"], classes, names["kind"]
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise SamplesError(
                f"unreadable samples: {error}", where=folder, fix="re-run the validation step"
            ) from error


def bytes_to_unit(x: Tensor) -> Tensor:
    """Turn uint8 0..255 into float32 0..1 (``x / 255``)."""
    return x.to(torch.float32).div_(255.0)


def content_ids(x: Tensor) -> tuple[str, ...]:
    """32 hex digits a row: a hash of shape, type and content."""
    rows: NDArray[Any] = np.ascontiguousarray(x.numpy())
    head = f"{rows.shape[1:]}{rows.dtype}".encode()
    return tuple(hashlib.blake2b(head + row.tobytes(), digest_size=16).hexdigest() for row in rows)


def make_samples(
    x: Tensor,
    y: Tensor,
    *,
    source: str,
    groups: Tensor | None = None,
    classes: Sequence[str] = (),
    kind: str = "image",
) -> Samples:
    """Samples from tensors: ids by content; without ``groups``, each distinct content is a group of its own.

    Args:
        x: ``(N, C, H, W)`` float32 in 0..1 (images) or ``(N, ...)`` (raw).
        y: ``(N,)`` class numbers.
        source: Named in messages.
        groups: ``(N,)`` int64 group numbers.
        classes: Class names in label order.
        kind: ``"image"`` or ``"raw"``.
    """
    ids = content_ids(x)
    if groups is None:
        seen: dict[str, int] = {}
        groups = torch.tensor([seen.setdefault(name, len(seen)) for name in ids], dtype=torch.long)
    return Samples(x, y.to(torch.long), ids, groups.to(torch.long), source, tuple(classes), kind)


def _compact(x: Tensor) -> Tensor:
    """``x`` as uint8 when nothing is lost by it, else as it is."""
    if x.dtype != torch.float32 or not len(x) or not bool(((x >= 0) & (x <= 1)).all()):
        return x.contiguous()
    small = (x * 255).round().to(torch.uint8)
    return small.contiguous() if torch.equal(bytes_to_unit(small), x) else x.contiguous()
