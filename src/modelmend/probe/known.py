"""A trigger that the user knows, from a file of plain tensors.

Tensors of the file: ``target`` (a class number) and one of

- ``mask`` and ``pattern``: ``x + mask (pattern - x)``, a patch or a blend;
- ``delta``: ``x + delta``, an addition;
- ``flow``: a warp by so many pixels.

``pattern`` and ``delta`` have the shape of a sample, ``mask`` that shape or ``(H, W)`` or ``(1, H, W)``, ``flow``
``(2, H, W)``. Values are floats in the samples' 0..1; of images, uint8 is taken as 0..255 and bool as 0 or 1. Triggered
images are clamped to 0..1.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modelmend.errors import InputError, ModelmendError
from modelmend.model.safetensor import read_safetensors
from modelmend.probe.trigger import Trigger

MAX_BYTES = 64 * 1024 * 1024
NAMES = {"mask", "pattern", "delta", "flow", "target"}
WAYS = ({"mask", "pattern"}, {"delta"}, {"flow"})
_TOO_LARGE = f"a trigger is at most {MAX_BYTES // 1024**2} MiB"
_FORM = "write target, and mask with pattern, or delta, or flow (docs/policy.md)"


def read_known_trigger(
    path: str | Path, *, input_shape: Sequence[int], num_classes: int, image: bool = True
) -> Trigger:
    """Read a trigger from an ``.npz`` or ``.safetensors`` file; nothing in it is executed.

    Args:
        path: The file.
        input_shape: Shape of one sample.
        num_classes: Classes of the model.
        image: Samples are images in 0..1; otherwise they are raw and not clamped.

    Raises:
        InputError: no such file, one that cannot be read or is too large, unknown or missing tensors, a wrong
            shape, values outside their range, or a target that is no class.
    """
    path = Path(path)
    tensors = _tensors(path)
    names = set(tensors) - {"target"}
    if names not in WAYS:
        raise InputError(f"holds {', '.join(sorted(tensors)) or 'nothing'}", where=path, field="tensors", fix=_FORM)
    if "target" not in tensors:
        raise InputError("the class that it leads to is missing", where=path, field="target", fix=_FORM)
    shape = tuple(input_shape)
    parts = {name: _part(name, tensors[name], shape, path, image) for name in names}
    moving = parts["mask" if "mask" in parts else next(iter(names))]
    if not bool(moving.any()):
        raise InputError(
            "this trigger changes nothing", where=path, field="tensors", fix="give one that is not all zero"
        )
    if not image:
        parts |= {"low": torch.tensor(-torch.inf), "high": torch.tensor(torch.inf)}
    return Trigger("known", _target(tensors["target"], num_classes, path), parts)


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(_TOO_LARGE, where=path, field="known_trigger", fix="give the file of the trigger")
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        if not zipfile.is_zipfile(path):
            path.open("rb").close()  # tells why it cannot be read, if that is so
            raise InputError("this is no .npz archive", where=path, field="known_trigger", fix=_FORM)
        with zipfile.ZipFile(path) as archive:
            members = {item.filename.removesuffix(".npy"): item.file_size for item in archive.infolist()}
        if set(members) - NAMES:
            raise InputError(f"holds {', '.join(sorted(members))}", where=path, field="tensors", fix=_FORM)
        if sum(members.values()) > MAX_BYTES:
            raise InputError(_TOO_LARGE, where=path, field="known_trigger", fix="give the file of the trigger")
        with np.load(path, allow_pickle=False) as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored.files}
    except OSError as error:
        raise InputError(
            f"cannot read the trigger: {error.strerror or error}",
            where=path,
            field="known_trigger",
            fix="check the path",
        ) from error
    except InputError:
        raise
    except ModelmendError as error:
        raise InputError(error.message, where=path, field="known_trigger", fix=error.fix or _FORM) from error
    except Exception as error:  # what zip, deflate and npy decoders raise on damaged bytes
        raise InputError(f"no trigger file: {error}", where=path, field="known_trigger", fix=_FORM) from error


def _part(name: str, value: Tensor, shape: tuple[int, ...], path: Path, image: bool) -> Tensor:
    whole = (torch.uint8, torch.bool) if image else (torch.bool,)
    if not value.is_floating_point() and value.dtype not in whole:
        kinds = "floats, or bytes (uint8) for 0..255" if image else "floats"
        raise InputError(f"holds {value.dtype}", where=path, field=name, fix=f"store {kinds}")
    if name == "mask" and value.dtype == torch.uint8 and bool(value.any()) and int(value.max()) == 1:
        raise InputError(
            "bytes of 0 and 1", where=path, field=name, fix="store bool or float: bytes are taken as 0..255"
        )
    part = value.float() / 255 if value.dtype == torch.uint8 else value.float()
    if not bool(torch.isfinite(part).all()):
        raise InputError("not finite", where=path, field=name, fix="write finite numbers")
    if name == "flow":
        allowed: list[tuple[int, ...]] = [(2, *shape[1:])] if len(shape) == 3 else []
    else:
        allowed = [shape]
    if name == "mask" and len(shape) == 3:
        allowed += [(1, *shape[1:]), shape[1:]]
    if tuple(part.shape) not in allowed:
        wanted = " or ".join(map(str, allowed)) or "images, which these samples are not"
        raise InputError(
            f"shape {tuple(part.shape)}, wanted {wanted}", where=path, field=name, fix="store it in that shape"
        )
    if (name == "mask" or (name == "pattern" and image)) and not bool(((part >= 0) & (part <= 1)).all()):
        raise InputError("values outside 0..1", where=path, field=name, fix="scale it to 0..1, or store it as uint8")
    if name == "delta" and image and bool((part.abs() > 1).any()):
        raise InputError("values outside -1..1", where=path, field=name, fix="scale it as samples are scaled to 0..1")
    return part[None] if name == "mask" and part.dim() == len(shape) - 1 else part


def _target(value: Tensor, num_classes: int, path: Path) -> int:
    whole = value.numel() == 1 and not value.is_floating_point() and value.dtype != torch.bool
    if not whole or value.is_complex() or not 0 <= int(value) < num_classes:
        raise InputError(
            f"{value.tolist()} is no class of the model",
            where=path,
            field="target",
            fix=f"write a whole number from 0 to {num_classes - 1}",
        )
    return int(value)
