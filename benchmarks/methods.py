"""Repairs by name: ``METHODS[name](classifier, parts, triggers, seed, progress) -> Classifier``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from benchmarks.baselines import BASELINES
from benchmarks.parts import Parts
from modelmend.metrics import sample_passes
from modelmend.model.classifier import Classifier
from modelmend.progress import Progress, silent

if TYPE_CHECKING:
    from modelmend.probe.run import ProbeResult
    from modelmend.probe.trigger import Trigger


class Triggers:
    """The probe's candidate triggers for one model and seed: computed once, when a method first asks.

    Attributes:
        parts: The clean samples that it probes with.
        seconds: What the probe took; added to the time of each method that used it.
        passes: Likewise, sample passes.
        used: Whether the present method asked.
    """

    def __init__(self, classifier: Classifier, parts: Parts, seed: int) -> None:
        self._classifier, self.parts, self._seed = classifier, parts, seed
        self._result: ProbeResult | None = None
        self.seconds = self.passes = 0.0
        self.used = False

    def result(self, progress: Progress = silent) -> ProbeResult:
        """The full probe, as the product runs it."""
        from modelmend.probe.run import probe

        self.used = True
        if self._result is None:
            started, spent = time.monotonic(), sample_passes()
            fit, reward, select = self.parts.pairs
            self._result = probe(
                self._classifier, fit, reward, mode="full", seed=self._seed, progress=progress, more=select
            )
            self.seconds, self.passes = time.monotonic() - started, sample_passes() - spent
        return self._result

    def accused(self, progress: Progress = silent) -> list[Trigger]:
        """Those that lead to the accused classes, as the product hands them to a repair."""
        from modelmend.probe.accused import accused, against

        found = self.result(progress)
        return against(found.triggers, accused(found.evidence))

    def again(self, classifier: Classifier, seed: int) -> list[Trigger]:
        """Probe a half-repaired model with the families of the reward, quickly."""
        from modelmend.steps.mending import probe_again

        fit, reward, _ = self.parts.pairs
        return probe_again(fit, reward, self.result().evidence)(classifier, seed)


Method = Callable[[Classifier, Parts, Triggers, int, Progress], Classifier]


def onp(classifier: Classifier, parts: Parts, triggers: Triggers, seed: int, progress: Progress) -> Classifier:
    """Optimized neuron pruning alone."""
    from modelmend.pruning.onp import PruningConfig, prune

    found = triggers.result(progress)
    result = prune(
        classifier,
        *parts.pairs,
        triggers.accused(progress),
        config=PruningConfig(),
        seed=seed,
        progress=progress,
        reprobe=triggers.again,
        probability=found.evidence.probability,
    )
    return result.classifier


def edit(classifier: Classifier, parts: Parts, triggers: Triggers, seed: int, progress: Progress) -> Classifier:
    """Activation-guided editing alone."""
    return _edited(classifier, classifier, triggers, seed, progress)


def modelmend(classifier: Classifier, parts: Parts, triggers: Triggers, seed: int, progress: Progress) -> Classifier:
    """The whole repair in the pipeline's order: prune, then edit with the old triggers and those found again."""
    return _edited(classifier, onp(classifier, parts, triggers, seed, progress), triggers, seed, progress)


def _edited(suspect: Classifier, begun: Classifier, triggers: Triggers, seed: int, progress: Progress) -> Classifier:
    from modelmend.editing.edit import edit
    from modelmend.steps.mending import chance, search_again, to_unlearn

    probed, fit = triggers.result(progress), triggers.parts.pairs[0]
    return edit(
        begun,
        *triggers.parts.pairs,
        to_unlearn(begun, probed.triggers, fit, probed.evidence, seed),
        seed=seed,
        progress=progress,
        reprobe=search_again(fit, probed.evidence),
        reference=suspect,
        chance=chance(probed.evidence),
    ).classifier


def methods(effort: float) -> dict[str, Method]:
    """All methods; ``effort`` scales the published step counts of the baselines."""

    def baseline(name: str) -> Method:
        return lambda classifier, parts, triggers, seed, progress: BASELINES[name](
            classifier, parts, seed, effort=effort, progress=progress
        )

    ours: dict[str, Method] = {"onp": onp, "edit": edit, "modelmend": modelmend}
    return {"none": lambda classifier, *_: classifier} | {name: baseline(name) for name in BASELINES} | ours


METHODS = methods(1.0)
