"""Physical removal: groups are cut out of weights and graph, so that the model is smaller and its output the same."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from modelmend.errors import InputError, ModelUnsupported
from modelmend.model.groups import Group, groups_of, zero_groups
from modelmend.model.labels import Value, compress, varying
from modelmend.model.propagate import Flow, attribute, base_name, propagate
from modelmend.model.rewrite import Cut, rewrite
from modelmend.model.shapes import placeholder, zeros

TOLERANCE = 1e-4
"""Largest relative difference between masked and removed outputs that is let through, in float32."""


def remove_groups(graph: GraphModule, groups: Sequence[Group], input_shape: tuple[int, ...]) -> GraphModule:
    """A smaller model with the same output as the one whose groups are set to zero.

    Where all channels of some value would go, one group stays in the graph, set to zero. The result is checked
    against the zeroed model on random inputs before it is returned.

    Args:
        graph: The model form; not changed.
        groups: From ``find_groups`` on this graph.
        input_shape: Of one sample, without the batch axis.

    Returns:
        A new graph module with its own parameters; names stay.

    Raises:
        InputError: the groups were found on another graph.
        ModelUnsupported: the smaller model does not give the same output.
    """
    if not groups:
        return copy.deepcopy(graph)
    flow = propagate(graph, input_shape)
    known = groups_of(flow)
    for group in groups:
        if group.index >= len(known) or known[group.index].slices != group.slices:
            raise InputError(
                "the groups were found on another graph",
                field=group.layer,
                fix="call find_groups on the graph that you cut",
            )
    zeroed = copy.deepcopy(graph)
    zero_groups(zeroed, groups)
    removed = _leave_one(flow, _atoms(flow, groups))
    cut = _cut(flow, removed)
    smaller = _build(zeroed, cut)
    _check(zeroed, smaller, input_shape)
    return smaller


def _atoms(flow: Flow, groups: Sequence[Group]) -> list[int]:
    """The atom of each group, by the first place that it holds in a parameter."""
    found = []
    for group in groups:
        part = group.slices[0]
        use = flow.uses[part.param, part.dim]
        found.append(int(flow.atoms.find(use.labels)[part.index[0]]))
    return found


def _axes(flow: Flow) -> list[Tensor]:
    """Label vectors of every axis that removal shortens, each once."""
    found = [flow.atoms.find(use.labels) for use in flow.uses.values()]
    for _, value in flow.values():
        labels = compress(flow.atoms.find(value.labels))
        if varying(labels):
            found.append(labels.reshape(-1))
    return found


def _leave_one(flow: Flow, removed: list[int]) -> set[int]:
    """Take back (in order) the first atom of every axis that would be left empty."""
    gone = set(removed)
    axes = [set(labels.tolist()) for labels in _axes(flow)]
    for atoms in axes:
        if atoms <= gone:
            gone.discard(next(atom for atom in removed if atom in atoms and atom in gone))
    return gone


def _kept(labels: Tensor, removed: Tensor) -> Tensor:
    return (~torch.isin(labels, removed)).nonzero().flatten()


def _cut(flow: Flow, removed: set[int]) -> Cut:
    """Which positions of which axis of every value and parameter stay."""
    gone = torch.tensor(sorted(removed))

    def of(value: Value) -> tuple[int, Tensor] | None:
        labels = compress(flow.atoms.find(value.labels))
        axes = varying(labels)
        if not axes or not bool(torch.isin(labels, gone).any()):
            return None
        return axes[0], _kept(labels.reshape(-1), gone)

    params: dict[str, dict[int, Tensor]] = {}
    for use in flow.uses.values():
        labels = flow.atoms.find(use.labels)
        if bool(torch.isin(labels, gone).any()):
            params.setdefault(use.param, {})[use.dim] = _kept(labels, gone)
    for name, value in flow.elements.items():
        if (found := of(value)) is not None:
            params.setdefault(name, {})[found[0]] = found[1]
    values: dict[Node, Any] = {}
    for node, item in flow.items.items():
        parts = item if isinstance(item, tuple) else (item,)
        cuts = [of(part) if isinstance(part, Value) else None for part in parts]
        if any(part is not None for part in cuts):
            values[node] = cuts if isinstance(item, tuple) else cuts[0]
    return Cut(flow, params, values)


def _build(weights: GraphModule, cut: Cut) -> GraphModule:
    graph, root = cut.flow.graph, nn.Module()
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            name = str(node.target)
            tensor = attribute(weights, name)
            smaller = tensor.detach()
            for dim, kept in cut.params.get(name, {}).items():
                smaller = smaller.index_select(dim, kept.to(smaller.device))
            put(
                root,
                name,
                nn.Parameter(smaller.clone(), tensor.requires_grad) if isinstance(tensor, nn.Parameter) else smaller,
            )
    made = GraphModule(root, rewrite(graph, cut, root), class_name="GraphModule")
    made.graph.eliminate_dead_code()
    made.graph.lint()
    made.recompile()
    return made.eval()


def put(root: nn.Module, name: str, tensor: Tensor) -> None:
    """Set a parameter or buffer by dotted name, making the modules on the way."""
    *path, leaf = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = getattr(root, part)
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(leaf, tensor)
    else:
        root.register_buffer(leaf, tensor)


def _vocabulary(graph: GraphModule) -> int:
    """How many different whole numbers the input may hold: the rows of the embeddings that it indexes."""
    tables = [user.args[0] for user in placeholder(graph).users if base_name(user) == "embedding"]
    return min((attribute(graph, str(t.target)).shape[0] for t in tables if isinstance(t, Node)), default=2)


@torch.no_grad()
def _check(zeroed: GraphModule, smaller: GraphModule, input_shape: tuple[int, ...]) -> None:
    """Compare outputs on random inputs, at a batch size that the shapes were not found with."""
    x, draw = zeros(zeroed, input_shape, batch=5), torch.Generator().manual_seed(0)
    if x.is_floating_point():
        x = torch.randn(x.shape, generator=draw).to(x)
    else:
        x = torch.randint(0, _vocabulary(zeroed), x.shape, generator=draw).to(x)
    wanted = zeroed(x)
    fix = "keep the groups masked instead, and report the architecture"
    try:
        given = smaller(x)
    except RuntimeError as error:
        raise ModelUnsupported(f"the smaller model does not run: {str(error).splitlines()[0]}", fix=fix) from error
    apart = float((wanted - given).abs().max() / wanted.abs().max().clamp_min(1e-12))
    bound = TOLERANCE if wanted.dtype in (torch.float32, torch.float64) else 2e-2
    if given.shape != wanted.shape or not apart <= bound:
        raise ModelUnsupported(f"the smaller model's output is off by {apart:.2g} of the largest logit", fix=fix)
