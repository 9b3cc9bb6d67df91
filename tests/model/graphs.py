"""The zoo in the model form, exported once a process."""

from __future__ import annotations

import functools

import torch
from torch import nn
from torch.fx import GraphModule

from modelmend.model.export import export_module
from modelmend.model.groups import Group, find_groups

from .zoo import ZOO

torch.set_num_threads(1)


@functools.cache
def graph_of(name: str) -> GraphModule:
    return export_module(ZOO[name].module(), ZOO[name].shape)


@functools.cache
def groups_of(name: str) -> tuple[Group, ...]:
    return tuple(find_groups(graph_of(name), ZOO[name].shape))


def graph(module: nn.Module, *shape: int) -> GraphModule:
    """Any module, with seeded weights and statistics."""
    draw = torch.Generator().manual_seed(1)
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=draw) + (0.5 if key.endswith("var") else -0.4))
    return export_module(module.eval(), shape)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, relative to the largest value."""
    one, other = one.detach(), other.detach()
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))
