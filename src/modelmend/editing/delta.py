"""The exact, reversible record of an edit: bit patterns before XOR after, a tensor for each changed one.

A difference of floats does not always lead back to the same bits; XOR does, in both directions: applied to the
original it gives the edited model, applied to the edited model it gives the original. That is our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from modelmend.editing.layers import tensors
from modelmend.errors import ArtifactError
from modelmend.model.classifier import Classifier

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class EditResult:
    """An edited model and how to undo it.

    Attributes:
        classifier: The edited model; the one that was given is untouched.
        delta: Name -> XOR of the bit patterns, integer, of the tensor's shape. Only tensors that changed.
        log: What was done, JSON-ready (see ``edit`` and ``fine_tune``).
    """

    classifier: Classifier
    delta: dict[str, Tensor]
    log: dict[str, Any] = field(default_factory=dict)


def exact_delta(before: GraphModule, after: GraphModule) -> dict[str, Tensor]:
    """XOR of the bit patterns of every parameter and buffer that differs.

    Args:
        before: The model before the edit.
        after: The same graph with other values.

    Returns:
        Name -> integer tensor on the CPU, shaped like the tensor it belongs to.

    Raises:
        ArtifactError: the two differ in the names or shapes of their tensors.
    """
    old, new = tensors(before), tensors(after)
    if {n: (t.shape, t.dtype) for n, t in old.items()} != {n: (t.shape, t.dtype) for n, t in new.items()}:
        raise ArtifactError("an edit keeps every tensor's name, shape and type; these two models differ in them")
    delta = {name: _bits(old[name]) ^ _bits(new[name]) for name in old}
    return {name: change for name, change in delta.items() if bool(change.any())}


def toggle(classifier: Classifier, delta: Mapping[str, Tensor]) -> Classifier:
    """Apply an exact delta: original -> edited, or edited -> original, bit for bit. The given model is untouched.

    Raises:
        ArtifactError: the delta names a tensor that the model does not have in that shape and width.
    """
    result = classifier.clone()
    own = tensors(result.graph)
    done: set[int] = set()
    for name, change in delta.items():
        tensor = own.get(name)
        if tensor is None or tensor.shape != change.shape or _INTEGERS[tensor.element_size()] != change.dtype:
            raise ArtifactError(
                "the delta belongs to another model", field=name, fix="use it with the model that was edited"
            )
        if tensor.data_ptr() in done and tensor.numel():  # a tensor with two names is toggled once
            continue
        done.add(tensor.data_ptr())
        bits = _bits(tensor) ^ change
        with torch.no_grad():
            tensor.copy_(bits.view(tensor.dtype).reshape(tensor.shape).to(tensor.device))
    return result


def relative_norms(before: GraphModule, after: GraphModule) -> dict[str, float]:
    """``||after - before|| / ||before||`` of every floating tensor that changed (the plain norm where before is 0)."""
    old, new, norms = tensors(before), tensors(after), {}
    for name, tensor in old.items():
        if tensor.is_floating_point() and not torch.equal(tensor, new[name]):
            difference = float((new[name].detach().double() - tensor.detach().double()).norm())
            norms[name] = difference / (float(tensor.detach().double().norm()) or 1.0)
    return norms


def overall_norm(before: GraphModule, after: GraphModule) -> float:
    """Relative L2 norm of the whole change over all floating parameters, 0 when nothing changed."""
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    floating = [name for name, tensor in old.items() if tensor.is_floating_point()]
    change = sum(float((new[n].detach().double() - old[n].detach().double()).square().sum()) for n in floating)
    size = sum(float(old[n].detach().double().square().sum()) for n in floating)
    return (change / size) ** 0.5 if size else 0.0


def _bits(tensor: Tensor) -> Tensor:
    flat = tensor.detach().cpu().contiguous()
    if flat.dtype == torch.bool:
        return flat.to(torch.uint8)
    return flat.reshape(-1).view(_INTEGERS[flat.element_size()]).reshape(flat.shape)
