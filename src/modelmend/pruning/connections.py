"""How strongly groups are wired: read off the weights through the slices of each group."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from modelmend.model.groups import Group


@dataclass(frozen=True)
class Connections:
    """Wiring of ``G`` groups in ``L`` layers.

    Attributes:
        layer: Layer number of each group in the order of the network, long ``(G,)``.
        layers: Name of each layer, ``L`` of them.
        vectors: A layer's connection-strength vectors ``(groups of the layer, inputs)``: for each filter the L1 norm of
            its weights per input channel (arXiv 2405.17746), weights that make the same group side by side.
        flow: ``(G, G)``; ``flow[i, j]`` = sum of the absolute weights that carry group i into group j.
        norm_in: L1 norm of the weights that make each group, ``(G,)``.
        norm_out: L1 norm of the weights that read it.
        lipschitz: Largest channel Lipschitz bound of its filters: spectral norm of the filter as a matrix
            ``inputs x kernel`` times ``|scale / sqrt(var + eps)|`` of the batch norm behind it (CLP, Zheng et al.
            2022).
        norms: Batch-norm scale, shift, running mean and running standard deviation, averaged over its channels,
            ``(G, 4)``; 1, 0, 0, 1 without batch norm.
    """

    layer: Tensor
    layers: tuple[str, ...]
    vectors: tuple[Tensor, ...]
    flow: Tensor
    norm_in: Tensor
    norm_out: Tensor
    lipschitz: Tensor
    norms: Tensor


def connections(graph: GraphModule, groups: Sequence[Group]) -> Connections:
    """Measure the wiring; nothing is run."""
    count = len(groups)
    names = list(dict.fromkeys(group.layer for group in groups))
    layer = torch.tensor([names.index(group.layer) for group in groups], dtype=torch.long)
    owners = _owners(graph, groups)
    norms, gain = _batch_norms(graph, owners, count)
    flow = torch.zeros(count, count)
    norm_in, norm_out, lipschitz = torch.zeros(count), torch.zeros(count), torch.zeros(count)
    parts: dict[int, list[Tensor]] = {}
    for name, axes in owners.items():
        weight = _tensor(graph, name)
        made, reads = axes["out"][0] if "out" in axes else None, axes.get("in", [])
        if weight.dim() < 2 or (made is None and not reads):
            continue
        strength = weight.abs().flatten(2).sum(2) if weight.dim() > 2 else weight.abs()
        if (made is not None and made[0] == 1) or any(read[0] == 0 for read in reads):
            strength = strength.T
        reads = [read for read in reads if strength.shape[1] == len(read[1])]
        if made is not None:
            rows = _sum_rows(strength, made[1], count)
            norm_in += rows.sum(1)
            filters = weight.transpose(0, made[0])
            bound = torch.linalg.matrix_norm(filters.reshape(len(filters), filters.shape[1], -1), 2)
            lipschitz = torch.maximum(lipschitz, _largest(bound, made[1], count))
            for number in sorted(set(layer[made[1][made[1] >= 0]].tolist())):
                parts.setdefault(number, []).append(rows[layer == number])
            for read in reads:
                flow += _sum_rows(rows.T, read[1], count)
        for read in reads:
            norm_out += _sum_rows(strength.T, read[1], count).sum(1)
    flow.fill_diagonal_(0)
    vectors = tuple(
        torch.cat(parts[i], 1) if i in parts else torch.zeros(int((layer == i).sum()), 1) for i in range(len(names))
    )
    return Connections(layer, tuple(names), vectors, flow, norm_in, norm_out, lipschitz * gain, norms)


Axis = tuple[int, Tensor]
"""An axis of a parameter, and the group of each position along it (-1: none)."""


def _owners(graph: GraphModule, groups: Sequence[Group]) -> dict[str, dict[str, list[Axis]]]:
    """Parameter -> role -> axis: which group owns which positions; several axes where branches are read together."""
    owners: dict[str, dict[str, list[Axis]]] = {}
    for group in groups:
        for part in group.slices:
            axes = owners.setdefault(part.param, {}).setdefault(part.role, [])
            index = list(part.index)
            free = next((owner for dim, owner in axes if dim == part.dim and bool((owner[index] < 0).all())), None)
            if free is None:
                free = torch.full((_tensor(graph, part.param).shape[part.dim],), -1)
                axes.append((part.dim, free))
            free[index] = group.index
    return owners


def _tensor(graph: GraphModule, name: str) -> Tensor:
    found: Tensor = operator.attrgetter(name)(graph)
    return found.detach().float().cpu()


def _sum_rows(matrix: Tensor, owner: Tensor, count: int) -> Tensor:
    """Rows summed by owner, ``(count, columns)``."""
    mine = owner >= 0
    return matrix.new_zeros(count, matrix.shape[1]).index_add_(0, owner[mine], matrix[mine])


def _largest(values: Tensor, owner: Tensor, count: int) -> Tensor:
    mine = owner >= 0
    return values.new_zeros(count).scatter_reduce_(0, owner[mine], values[mine], "amax")


def _batch_norms(graph: GraphModule, owners: dict[str, dict[str, list[Axis]]], count: int) -> tuple[Tensor, Tensor]:
    """Batch-norm figures ``(G, 4)`` and gain ``|scale| / std`` ``(G,)``, recognised by their running statistics."""
    figures, seen = torch.zeros(count, 4), torch.zeros(count)
    gain = torch.zeros(count)
    for name, roles in owners.items():
        if not name.endswith("running_mean") or "norm" not in roles:
            continue
        stem, owner = name.removesuffix("running_mean"), roles["norm"][0][1]
        mine = owner >= 0
        mean, var = _tensor(graph, name), _tensor(graph, f"{stem}running_var")
        scale = _tensor(graph, f"{stem}weight") if f"{stem}weight" in owners else torch.ones_like(mean)
        shift = _tensor(graph, f"{stem}bias") if f"{stem}bias" in owners else torch.zeros_like(mean)
        std = (var + 1e-5).sqrt()
        figures.index_add_(0, owner[mine], torch.stack([scale, shift, mean, std], 1)[mine])
        seen.index_add_(0, owner[mine], torch.ones(int(mine.sum())))
        gain = torch.maximum(gain, _largest(scale.abs() / std, owner, count))
    without = seen == 0
    figures = torch.where(without[:, None], torch.tensor([1.0, 0.0, 0.0, 1.0]), figures / seen.clamp_min(1)[:, None])
    return figures, torch.where(without, torch.ones_like(gain), gain)
