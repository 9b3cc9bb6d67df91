"""A state dict and the architecture that it belongs to: trusted code builds the module, the file gives the numbers."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from modelmend.errors import InputError, ModelUnsupported
from modelmend.model.architectures import ARCHITECTURES

_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 8


def build(
    arch: str, tensors: dict[str, Tensor], input_shape: tuple[int, ...], num_classes: int | None = None
) -> nn.Module:
    """The module that ``arch`` names, filled with ``tensors``, in eval mode.

    Args:
        arch: A built-in name (`ARCHITECTURES`) or ``package.module:callable`` of code that the user trusts; the
            callable gets ``num_classes`` when it takes an argument of that name and a number was given.
        tensors: Dotted name to value.
        input_shape: One sample's shape; built-in architectures take ``(channels, side, side)``.
        num_classes: By default what the last linear layer in the file says (built-in architectures).

    Raises:
        InputError: ``arch`` names nothing that can be called.
        ModelUnsupported: Names or shapes differ; the nearest candidates are listed.
    """
    tensors = without_prefix(tensors)
    module = _builtin(arch, tensors, input_shape, num_classes) if ":" not in arch else _imported(arch, num_classes)
    _check_names(module, tensors, arch)
    floating = {t.dtype for t in tensors.values() if t.is_floating_point()}
    if len(floating) == 1:
        module.to(floating.pop())
    module.load_state_dict(tensors, strict=False)
    return module.eval()


def without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without what ``DataParallel`` and ``torch.compile`` put in front of all of them."""
    for prefix in _PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            return without_prefix({name.removeprefix(prefix): t for name, t in tensors.items()})
    return tensors


def _builtin(arch: str, tensors: dict[str, Tensor], shape: tuple[int, ...], num_classes: int | None) -> nn.Module:
    builder = ARCHITECTURES.get(arch)
    if builder is None:
        near = difflib.get_close_matches(arch, ARCHITECTURES, 3)
        raise InputError(
            f"there is no built-in architecture {arch!r}", field="arch",
            fix=f"use one of {', '.join(near or ARCHITECTURES)}, or package.module:callable",
        )  # fmt: skip
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(
            f"built-in architectures take square images (channels, side, side), not {shape}", field="input_shape"
        )
    head = [name for name, m in builder(shape[0], 2, shape[1]).named_modules() if isinstance(m, nn.Linear)][-1]
    classes = num_classes or len(tensors.get(f"{head}.bias", ()))
    if classes < 2:
        raise InputError("the number of classes is not known", field="num_classes", fix="give the number of classes")
    return builder(shape[0], classes, shape[1])


def _imported(arch: str, num_classes: int | None) -> nn.Module:
    """Import and call what the user named; ``torchvision:resnet18`` is short for ``torchvision.models:resnet18``."""
    package, _, name = arch.partition(":")
    try:
        made: Any = importlib.import_module("torchvision.models" if package == "torchvision" else package)
        for part in name.split("."):
            made = getattr(made, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"cannot import the architecture {arch!r}: {error}", field="arch",
            fix="give package.module:callable of code that is installed or on PYTHONPATH",
        ) from error  # fmt: skip
    if isinstance(made, nn.Module):
        return made
    try:
        wanted = num_classes is not None and "num_classes" in inspect.signature(made).parameters
        made = made(num_classes=num_classes) if wanted else made()
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{arch!r} cannot be called: {error}",
            field="arch",
            fix="name a function of no arguments that returns the module",
        ) from error
    if not isinstance(made, nn.Module):
        raise InputError(f"{arch!r} gives a {type(made).__name__}, not a torch module", field="arch")
    return made


def _check_names(module: nn.Module, tensors: dict[str, Tensor], arch: str) -> None:
    expected = module.state_dict()
    unknown = [name for name in tensors if name not in expected]
    missing = [n for n in expected if n not in tensors and not n.endswith("num_batches_tracked")]
    lines = [f"{name!r} is in the file only{_nearest(name, missing)}" for name in unknown[:_SHOWN]]
    lines += [f"{name!r} is in the architecture only{_nearest(name, unknown)}" for name in missing[:_SHOWN]]
    lines += [
        f"{name!r} has shape {tuple(t.shape)} in the file, {tuple(expected[name].shape)} in the architecture"
        for name, t in tensors.items()
        if name in expected and t.shape != expected[name].shape
    ][:_SHOWN]
    if lines:
        hidden = max(0, len(unknown) - _SHOWN) + max(0, len(missing) - _SHOWN)
        more = f"\n    and {hidden} more" if hidden else ""
        raise ModelUnsupported(
            "the state dict does not fit the architecture:\n    " + "\n    ".join(lines) + more,
            field="arch", where=arch, fix="name the architecture that the weights were trained with",
        )  # fmt: skip


def _nearest(name: str, candidates: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(candidates)[:2000], 2, 0.7)
    return f" (nearest: {', '.join(map(repr, near))})" if near else ""


def described(tensors: dict[str, Tensor]) -> str:
    """The first names and shapes, for a message that asks for the architecture."""
    shown = [f"{name} {tuple(t.shape)}" for name, t in list(tensors.items())[:4]]
    kinds = {t.dtype for t in tensors.values()} - {torch.int64}
    return f"{len(tensors)} tensors ({', '.join(sorted(map(str, kinds)))}): {'; '.join(shown)}, ..."
