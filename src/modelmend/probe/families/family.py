"""One interface for all trigger families: a parametrisation, and the view of the model in which it is searched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from modelmend.model.classifier import Classifier
from modelmend.probe.fast import fast_copy
from modelmend.probe.form import Form
from modelmend.probe.search import Fit, Forward, SearchConfig, search
from modelmend.probe.trigger import Trigger
from modelmend.progress import Progress, silent

Kind = Literal["patch", "additive", "warp", "feature", "unlearning"]


class View(Protocol):
    """The function in which a family searches: the model itself, or a changed copy in which a backdoor stands out."""

    def __call__(self, classifier: Classifier, x: Tensor, y: Tensor, *, seed: int) -> Forward:
        """Build it from the model and clean samples; the model is not changed."""
        ...


def model_itself(classifier: Classifier, x: Tensor, y: Tensor, *, seed: int) -> Forward:
    """The plain view: a faster copy of the model."""
    del y, seed
    return fast_copy(classifier, x)


@dataclass(frozen=True)
class TriggerFamily:
    """A way to search for triggers.

    Attributes:
        name: Key in ``FAMILIES``.
        kind: What the family looks at; the verdict needs one of another kind than those used in the repair.
        form: Makes the parametrisation for samples ``(N, ...)``.
        view: Makes the function that is searched.
        images: Samples must be images ``(N, C, H, W)``.
        needs_batch_norm: Works only where the model has batch norm; ``substitute`` is used elsewhere.
        substitute: Name of the family to use instead.
        tau: Share of samples that a candidate must flip.
        source: Where the idea is from.
    """

    name: str
    kind: Kind
    form: Callable[[Tensor], Form]
    view: View = model_itself
    images: bool = False
    needs_batch_norm: bool = False
    substitute: str | None = None
    tau: float = 0.75
    source: str = ""

    def fit_classes(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        targets: Sequence[int],
        *,
        seed: int,
        config: SearchConfig | None = None,
        radius: Tensor | None = None,
        progress: Progress = silent,
    ) -> list[Fit]:
        """Candidates for many classes at once.

        Args:
            classifier: The model.
            x: Clean samples ``(N, ...)``.
            y: Labels ``(N,)``.
            targets: Classes.
            seed: Of all draws.
            config: Search settings; ``tau`` is the family's own.
            radius: Size to stay within ``(len(targets),)``; ``None`` finds the smallest.
            progress: Called after every step.
        """
        device = classifier.device
        x, y = x.to(device), y.to(device)
        forward = self.view(classifier, x, y, seed=seed)
        settings = config or SearchConfig(tau=self.tau)
        return search(
            forward,
            self.form(x),
            x,
            y,
            targets,
            family=self.name,
            seed=seed,
            config=settings,
            radius=radius,
            progress=progress,
        )

    def fit(self, classifier: Classifier, x: Tensor, y: Tensor, target: int, *, seed: int, steps: int = 100) -> Trigger:
        """The candidate for one class, after ``steps`` updates."""
        config = SearchConfig(steps=steps, tau=self.tau)
        return self.fit_classes(classifier, x, y, [target], seed=seed, config=config)[0].trigger
