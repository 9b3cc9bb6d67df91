"""What is known of activations: statistics of the channels of nodes, and the same by neuron group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from modelmend.errors import InputError
from modelmend.model.groups import Group

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Probabilities at which the sketch is read."""


@dataclass(frozen=True)
class SiteStatistics:
    """Statistics of the ``C`` channels of one node over the samples; float32 on the CPU.

    Attributes:
        mean: ``(C,)`` mean of the spatial mean.
        var: ``(C,)`` variance of the spatial mean (population).
        max_mean: ``(C,)`` mean of the spatial maximum.
        max_var: ``(C,)`` variance of the spatial maximum.
        silent: ``(C,)`` share of samples whose spatial maximum is not above 0 (dead behind a ReLU).
        class_mean: ``(classes, C)`` mean of the spatial mean of each class; NaN for classes without samples.
        class_max: ``(classes, C)`` mean of the spatial maximum of each class.
        quantiles: ``(Q, C)`` of the spatial mean at ``QUANTILES``, with ``sketch``.
        max_quantiles: ``(Q, C)`` of the spatial maximum, with ``sketch``.
        full_mean: Mean of every element ``(C, *spatial)``, with ``full``.
        full_var: Variance of every element ``(C, *spatial)``, with ``full``.
    """

    mean: Tensor
    var: Tensor
    max_mean: Tensor
    max_var: Tensor
    silent: Tensor
    class_mean: Tensor
    class_max: Tensor
    quantiles: Tensor | None = None
    max_quantiles: Tensor | None = None
    full_mean: Tensor | None = None
    full_var: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What there is, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Activations:
    """Statistics of several nodes.

    Attributes:
        sites: Node name -> its statistics.
        count: Samples seen.
        class_count: ``(classes,)`` samples of each class.
    """

    sites: dict[str, SiteStatistics]
    count: int
    class_count: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Everything as flat tensors ``<node>/<statistic>``, and ``class_count``."""
        flat = {f"{node}/{key}": value for node, site in self.sites.items() for key, value in site.tensors().items()}
        return flat | {"class_count": self.class_count}

    def for_groups(self, groups: Sequence[Group]) -> GroupActivations:
        """One number a group: its channels averaged at the first site that was collected.

        Args:
            groups: Of the same graph.

        Raises:
            InputError: none of a group's sites was collected.
        """
        return GroupActivations.of(self, groups)


@dataclass(frozen=True)
class GroupActivations:
    """Statistics by group (see ``SiteStatistics``): ``(G,)``, class means ``(classes, G)``, quantiles ``(Q, G)``."""

    mean: Tensor
    var: Tensor
    max_mean: Tensor
    max_var: Tensor
    silent: Tensor
    class_mean: Tensor
    class_max: Tensor
    quantiles: Tensor | None = None
    max_quantiles: Tensor | None = None

    @classmethod
    def of(cls, found: Activations, groups: Sequence[Group]) -> GroupActivations:
        """See ``Activations.for_groups``."""
        picked = []
        for group in groups:
            site = next((s for s in group.sites if s.node in found.sites), None)
            if site is None:
                raise InputError(
                    f"no statistics of group {group.index} ({group.layer})",
                    field="sites",
                    fix="collect the groups' sites",
                )
            picked.append((found.sites[site.node], list(site.channels)))
        columns: dict[str, Tensor] = {}
        for name in cls.__dataclass_fields__:
            rows = [(getattr(statistics, name), channels) for statistics, channels in picked]
            if rows and all(value is not None for value, _ in rows):
                columns[name] = torch.stack([value[..., channels].mean(-1) for value, channels in rows], -1)
            elif not rows and name not in ("quantiles", "max_quantiles"):
                columns[name] = torch.empty(0)
        return cls(**columns)
