"""Fine-tuning with more clean data: the fallback when editing is not enough.

Sharpness-aware like FT-SAM (Zhu et al., "Enhancing fine-tuning based backdoor defense with sharpness-aware
minimization", arXiv 2304.11823), with the probe triggers in the batches; plain fine-tuning leaves most backdoors.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from modelmend.editing.delta import EditResult, exact_delta, overall_norm, relative_norms
from modelmend.editing.edit import as_pair, join, part_of_the_way, starting_point
from modelmend.editing.layers import partway, put_back, snapshot
from modelmend.editing.quality import Quality, SelectSplit, strongest
from modelmend.editing.tuning import TuneConfig, tune
from modelmend.metrics import sample_passes
from modelmend.model.classifier import Classifier
from modelmend.probe.trigger import Trigger
from modelmend.progress import Progress, silent


class FineTuneConfig(TuneConfig):
    """Settings of the fallback: longer than the repair step, and sharpness-aware."""

    epochs: int = 40
    patience: int = 10
    rho: float = 0.1
    max_triggers: int = 24


def fine_tune(
    classifier: Classifier,
    fit: Any,
    reward: Any,
    select: Any,
    triggers: Sequence[Trigger],
    *,
    config: FineTuneConfig | None = None,
    seed: int = 0,
    progress: Progress = silent,
    reference: Classifier | None = None,
    chance: float = 1.0,
) -> EditResult:
    """Fine-tune all parameters, keep the epoch that the select split likes best, go back as far as the repair allows.

    Args:
        classifier: The suspect, or a repair that was not enough; not changed.
        fit: Samples or ``(x, y)``.
        reward: Samples or ``(x, y)``: the other half of the repair split.
        select: Samples or ``(x, y)``; only chooses the epoch.
        triggers: Probe triggers to unlearn; may be empty.
        config: Settings.
        seed: Of order, augmentation and the draw of triggers.
        progress: Called once an epoch.
        reference: The suspect, when ``classifier`` is a repair of it: its clean behaviour is to be kept, the way back leads
            to it, and training starts from it, too, with the cuts of the repair, and keeps the better of the two.
            ``classifier`` itself when not given.
        chance: Probability that there is a backdoor: how much success counts against accuracy.

    Returns:
        Same as ``edit``, the change being that from ``classifier``; the log holds ``before``, ``judged_by``, ``after``,
        ``start`` (``repaired`` or ``suspect``), ``starts`` (figures of both), ``epochs``, ``share``, ``layers``,
        ``relative_norm``, ``seconds``, ``passes`` and ``batch_norm`` (always ``frozen``).

    Raises:
        InputError: a split is empty.
    """
    config = config or FineTuneConfig()
    started, spent = time.monotonic(), sample_passes()
    samples = join(fit, reward)
    teacher = reference or classifier
    starts = _starts(classifier, reference)
    triggers = strongest(list(starts.values()), triggers, as_pair(fit, "fit"), config.max_triggers)
    split = SelectSplit(as_pair(select, "select"), triggers, reference=teacher, chance=chance, repair=samples)
    as_is, before = starting_point(classifier, teacher, split)
    runs: list[tuple[Quality, str, Classifier, list[dict[str, Any]]]] = []
    for name, start in starts.items():
        tuned = start.clone().frozen()
        quality, rows = tune(
            tuned, teacher, samples, split, before=before,
            config=config, seed=seed, progress=progress, title=f"fine-tuning, from the {name} model",
        )  # fmt: skip
        runs.append((quality, name, tuned, rows))
    after, begun, result, rows = min(runs, key=lambda run: (run[0].cost(before), run[0].loss))
    result, after, share = part_of_the_way(teacher, result, split, as_is=as_is, before=before, quality=after)
    norms = relative_norms(classifier.graph, result.graph)
    reason = f"worst probe success {as_is.worst:.2f} -> {after.worst:.2f} on the select split"
    log: dict[str, Any] = {
        "method": "fine-tuning",
        "edited": bool(norms),
        "reason": reason,
        "before": as_is.log(before),
        "judged_by": split.log(),
        "after": after.log(before),
        "start": begun,
        "starts": {name: quality.log(before) for quality, name, _, _ in runs},
        "epochs": rows,
        "share": share,
        "batch_norm": "frozen",
        "layers": {name: round(norm, 6) for name, norm in norms.items()},
        "relative_norm": round(overall_norm(classifier.graph, result.graph), 6),
        "seconds": round(time.monotonic() - started, 3),
        "passes": sample_passes() - spent,
    }
    return EditResult(result, exact_delta(classifier.graph, result.graph), log)


def _starts(classifier: Classifier, reference: Classifier | None) -> dict[str, Classifier]:
    """The repair, and what it was made from with what it has cut left out; that only where it is another model."""
    starts = {"repaired": classifier}
    if reference is not None:
        back = reference.clone().frozen()
        put_back(back.graph, partway(snapshot(reference.graph), snapshot(classifier.graph), 0.0))
        if relative_norms(classifier.graph, back.graph):
            starts["suspect"] = back
    return starts
