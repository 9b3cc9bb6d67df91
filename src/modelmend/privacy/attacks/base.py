"""What a membership attack is: a score for each sample, from what its access level lets it see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from modelmend.model.classifier import Classifier

Access = Literal["label-only", "scores", "white-box", "gradients"]
ORDER: tuple[Access, ...] = ("label-only", "scores", "white-box", "gradients")


@dataclass(frozen=True)
class View:
    """One model and the samples that an attack judges.

    Attributes:
        classifier: The attacked model.
        x: Samples ``(N, ...)`` in 0..1.
        y: True classes ``(N,)``, on the CPU.
        logits: Its output ``(N, classes)``, float64 on the CPU.
        earlier: Output of the model before the repair, for an attacker who has both; ``None`` on that model itself.
    """

    classifier: Classifier
    x: Tensor
    y: Tensor
    logits: Tensor
    earlier: Tensor | None = None


class MembershipAttack(Protocol):
    """A way to tell members from strangers.

    Attributes:
        name: Key in ``ATTACKS``.
        access: The least access that it needs.
    """

    @property
    def name(self) -> str:
        """Key in ``ATTACKS``."""

    @property
    def access(self) -> Access:
        """The least access that it needs."""

    def score(self, view: View) -> Tensor:
        """Scores ``(N,)``, float64: larger = more like a member."""
        ...


@torch.no_grad()
def view(classifier: Classifier, x: Tensor, y: Tensor, *, earlier: Tensor | None = None, batch_size: int = 256) -> View:
    """Compute what the attacks share."""
    logits = torch.cat([classifier(part).cpu().double() for part in torch.split(x, batch_size)])
    return View(classifier, x, y.cpu(), logits, earlier)


def label_loss(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each sample ``(N,)``."""
    return torch.nn.functional.cross_entropy(logits, y, reduction="none")


def reaches(access: Access, needs: Access) -> bool:
    """Whether somebody with ``access`` can run an attack that needs ``needs``."""
    return ORDER.index(access) >= ORDER.index(needs)
