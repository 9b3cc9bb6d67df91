"""Triggers kept on disk: a network that is searched again and again is probed once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

import modelmend.probe
from modelmend import __version__
from modelmend.artifacts import sha256_code, sha256_json, write_json
from modelmend.model.hashing import content_hash
from modelmend.probe.accused import accused, against
from modelmend.progress import Progress, silent
from modelmend.samples.data import content_ids
from modelmend.steps.stores import load_triggers, save_triggers

if TYPE_CHECKING:
    from modelmend.model.classifier import Classifier
    from modelmend.probe.run import ProbeResult
    from modelmend.probe.trigger import Trigger

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Probed:
    """What a probe found on a network.

    Attributes:
        triggers: Candidates that lead to the accused classes.
        again: ``again(pruned, seed)`` probes the pruned network: the same families, the accused classes; kept, too.
        probability: Of a backdoor.
    """

    triggers: list[Trigger]
    again: Callable[[Classifier, int], list[Trigger]]
    probability: float | None = None


def probed(
    folder: Path,
    name: str,
    classifier: Classifier,
    fit: Pair,
    holdout: Pair,
    *,
    mode: str = "full",
    seed: int,
    progress: Progress = silent,
    more: Pair | None = None,
) -> Probed:
    """Probe a network, or read what an earlier call with the same weights, samples, settings and probe found.

    Args:
        folder: Where triggers are kept.
        name: Of the network; its files begin with it.
        classifier: The network.
        fit: Samples that triggers are fitted to.
        holdout: Others that their success is measured on.
        mode: ``full`` or ``screen``.
        seed: Of the probe.
        progress: Called often while it probes.
        more: Further samples, for the probe of the network itself.
    """
    from modelmend.probe.run import probe

    samples = sha256_json([[content_ids(x), y.tolist()] for x, y in (fit, holdout, *([] if more is None else [more]))])

    def look(network: Classifier, progress: Progress = silent, **settings: Any) -> Callable[[], ProbeResult]:
        return lambda: probe(network.frozen(), fit, holdout, progress=progress, **settings)

    def facts(network: Classifier, **settings: Any) -> dict[str, Any]:
        version = f"{__version__} {probe_code()}"
        return {"model": content_hash(network.graph), "samples": samples, "version": version, **settings}

    first: dict[str, Any] = {"mode": mode, "seed": seed}
    triggers, told = _kept(folder, name, facts(classifier, **first), look(classifier, progress, more=more, **first))

    def again(network: Classifier, seed: int) -> list[Trigger]:
        families, classes = told["families"], told["accused"] or None
        settings: dict[str, Any] = {"mode": "screen", "families": families, "classes": classes, "seed": seed}
        return _kept(folder, f"{name}-pruned", facts(network, **settings), look(network, **settings))[0]

    return Probed(against(triggers, told["accused"]), again, told["probability"])


@cache
def probe_code() -> str:
    """Hash of the probe's own files: triggers of another probe are not those that this one finds."""
    return sha256_code(modelmend.probe)


def _kept(
    folder: Path, name: str, facts: dict[str, Any], find: Callable[[], ProbeResult]
) -> tuple[list[Trigger], dict[str, Any]]:
    """All triggers, and families, accused classes and probability of a backdoor; from disk if found before."""
    stem = f"{name}-{sha256_json(facts).removeprefix('sha256:')[:12]}"
    tensors, record = folder / f"{stem}.safetensors", folder / f"{stem}.json"
    if not record.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        found = find()
        save_triggers(tensors, found.triggers)
        part = record.with_suffix(".part")
        about = {
            "families": list(found.evidence.families),
            "accused": list(accused(found.evidence)),
            "probability": found.evidence.probability,
        }
        write_json(part, {**facts, **about})
        part.replace(record)
    told = json.loads(record.read_text(encoding="utf-8"))
    return load_triggers(tensors), {name: told[name] for name in ("families", "accused", "probability")}
