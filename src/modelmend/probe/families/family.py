"""One interface for all trigger families: a parametrisation, and the view of the model in which it is searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from modelmend.model.classifier import Classifier
from modelmend.probe.fast import fast_copy
from modelmend.probe.form import Form
from modelmend.probe.search import Fit, Forward, SearchConfig, Start, search
from modelmend.probe.trigger import Trigger
from modelmend.progress import Progress, silent

Kind = Literal["patch", "additive", "warp", "spectral", "feature", "unlearning"]


class View(Protocol):
    """The function in which a family searches: the model itself, or a changed copy in which a backdoor stands out."""

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, *, seed: int) -> Forward:
        """Build it from the model and clean samples; the model is not changed."""
        ...


def model_itself(classifier: Classifier, x: Tensor, y: Tensor, *, seed: int) -> Forward:
    """The plain view: a faster copy of the model."""
    del y, seed
    copy = fast_copy(classifier, x)

    def forward(changed: Tensor, clean: Tensor) -> Tensor:
        del clean
        logits: Tensor = copy(changed)
        return logits

    return forward


@dataclass(frozen=True)
class Opened:
    """A family made ready for one model and one set of samples; the view is built once for all searches.

    Attributes:
        family: The family.
        forward: Its view of the model.
        form: Its parametrisation.
        x: Clean samples that triggers are fitted on.
        y: Their labels.
        start: Where a search starts, when that is not random.
    """

    family: TriggerFamily
    forward: Forward
    form: Form
    x: Tensor
    y: Tensor
    start: Start | None = None

    def search(
        self,
        targets: Sequence[int],
        *,
        seed: int,
        config: SearchConfig,
        radius: Sequence[float] | None = None,
        progress: Progress = silent,
    ) -> list[Fit]:
        """Candidates for many classes at once.

        Args:
            targets: Classes, repeats allowed.
            seed: Of all draws.
            config: Search settings; ``tau`` is replaced by the family's own.
            radius: Size of each to stay within; ``None`` finds the smallest.
            progress: Called after every step.
        """
        settings = replace(config, tau=self.family.tau)
        sizes = None if radius is None else torch.tensor(radius, dtype=torch.float32)
        return search(
            *(self.forward, self.form, self.x, self.y, targets),
            family=self.family.name,
            seed=seed,
            config=settings,
            radius=sizes,
            start=self.start,
            progress=progress,
        )

    @torch.no_grad()
    def flips(self, trigger: Trigger, x: Tensor, y: Tensor, target: int) -> tuple[int, int]:
        """Flipped and counted samples *in the family's view*: those not of the target class.

        Args:
            trigger: The candidate.
            x: Clean samples ``(N, ...)`` that it was not fitted on.
            y: Labels.
            target: Its class.
        """
        others = x[y != target].to(self.x.device)
        hits = 0
        for part in torch.split(others, 256):
            hits += int((self.forward(trigger(part), part).argmax(1) == target).sum())
        return hits, len(others)


@dataclass(frozen=True)
class TriggerFamily:
    """A way to search for triggers.

    Attributes:
        name: Key in ``FAMILIES``.
        kind: What the family looks at; the verdict needs one of another kind than those used in the repair.
        form: Makes the parametrisation for samples ``(N, ...)``.
        view: Makes the function that is searched.
        begin: Looks for where to start, once for all classes; random starts without it.
        images: Samples must be images ``(N, C, H, W)``.
        needs_batch_norm: Works only where the model has batch norm; ``substitute`` is used elsewhere.
        substitute: Name of the family to use instead.
        tau: Share of samples that a candidate must flip.
        noise: Spread of log sizes over the classes that means nothing: searches differ by about this much.
        source: Where the idea is from.
    """

    name: str
    kind: Kind
    form: Callable[[Tensor], Form]
    view: View = model_itself
    begin: Callable[[Forward, Any, Tensor, Tensor], Start] | None = None
    images: bool = False
    needs_batch_norm: bool = False
    substitute: str | None = None
    tau: float = 0.75
    noise: float = 0.12
    source: str = ""

    def open(self, classifier: Classifier, x: Tensor, y: Tensor, *, seed: int) -> Opened:
        """Build the view of a model.

        Args:
            classifier: The model; not changed.
            x: Clean samples ``(N, ...)``.
            y: Labels ``(N,)``.
            seed: Of all draws.
        """
        x, y = x.to(classifier.device), y.to(classifier.device)
        forward, form = self.view(classifier, x, y, seed=seed), self.form(x)
        start = None if self.begin is None else self.begin(forward, form, x, y)
        return Opened(self, forward, form, x, y, start)

    def fit(self, classifier: Classifier, x: Tensor, y: Tensor, target: int, *, seed: int, steps: int = 100) -> Trigger:
        """The candidate for one class, after ``steps`` updates."""
        opened = self.open(classifier, x, y, seed=seed)
        return opened.search([target], seed=seed, config=SearchConfig(steps=steps))[0].trigger
