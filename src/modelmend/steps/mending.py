"""Repairing: prune the guilty neurons, edit the weights that still answer, fine-tune only as a fallback."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from modelmend.artifacts import SCHEMAS, Artifact, read_artifact, sha256_file, write_json
from modelmend.events import Stage, stage
from modelmend.probe.accused import accused, against
from modelmend.progress import silent
from modelmend.records import DOUBTFUL, Evidence
from modelmend.steps.stores import (
    Suspect,
    open_classifier,
    open_evidence,
    open_samples,
    open_suspect,
    output,
    save_classifier,
)

if TYPE_CHECKING:
    from modelmend.editing.delta import EditResult
    from modelmend.model.classifier import Classifier
    from modelmend.probe.budget import Pair
    from modelmend.probe.trigger import Trigger


def prune_neurons(
    suspect: str, samples: str, evidence: str, activations: str, pruned: str, *, policy_dir: str = "", seed: int = 0
) -> dict[str, Any]:
    """Optimized neuron pruning: a learned policy cuts neuron groups on a clone.

    Args:
        suspect: SUSPECT artifact.
        samples: SAMPLES artifact; repair and select splits are read.
        evidence: EVIDENCE artifact.
        activations: ACTIVATIONS artifact the cuts are explained against.
        pruned: Where the PRUNED artifact goes.
        policy_dir: Folder of the policy to start from (``modelmend policy train``); empty: an untrained one.
        seed: Of policy, search and probes.

    Returns:
        How many groups were cut.
    """
    from modelmend.pruning.explanation import stored_graph
    from modelmend.pruning.onp import PruningConfig, demanding, prune
    from modelmend.pruning.pretrain import WEIGHTS

    with stage("prune_neurons") as progress:
        source, bank = open_suspect(suspect), open_samples(samples)
        artifact, found, triggers = open_evidence(evidence)
        statistics = read_artifact(activations, SCHEMAS["activations"])
        config = demanding(PruningConfig(policy_dir=Path(policy_dir) if policy_dir else None), found.probability)
        result = prune(
            source.classifier,
            bank["fit"],
            bank["reward"],
            bank["select"],
            against(triggers, accused(found)),
            config=config,
            seed=seed,
            progress=progress,
            reprobe=probe_again(bank["fit"], bank["reward"], found),
        )
        inputs = {"suspect": source.artifact, "samples": bank.artifact, "evidence": artifact, "activations": statistics}
        params: dict[str, Any] = {"config": config.model_dump(mode="json", exclude={"policy_dir"})}
        if config.policy_dir is not None:
            params["policy"] = sha256_file(config.policy_dir / WEIGHTS)
        with output(progress, pruned, "pruned", inputs=inputs, params=params, seed=seed) as folder:
            repaired = save_classifier(result.classifier, folder, source.info)
            lines = "".join(json.dumps(line, allow_nan=False) + "\n" for line in result.log)
            (folder / "search.jsonl").write_text(lines, encoding="utf-8")
            write_json(folder / "pruning.json", {**result.record(), "content_hash": repaired})
            if result.evidence is not None:
                write_json(folder / "graph.json", stored_graph(result.evidence))
        return {"groups_cut": len(result.cut), "content_hash": repaired}


def probe_again(fit: Pair, holdout: Pair, found: Evidence) -> Callable[[Classifier, int], list[Trigger]]:
    """Probe a pruned network again, quickly: accused classes, families of the reward, of whatever size they need now.

    How much larger they had to become is what tells a cut backdoor from a hidden one.
    """
    from modelmend.probe.run import probe

    def again(classifier: Classifier, seed: int) -> list[Trigger]:
        result = probe(
            classifier,
            fit,
            holdout,
            mode="screen",
            families=found.families,
            classes=accused(found) or None,
            seed=seed,
            progress=silent,
        )
        return list(result.triggers)

    return again


def chance(found: Evidence) -> float:
    """Probability of a backdoor as far as it is one: a probe that could not calibrate it is no reason to do less."""
    return found.probability if found.calibrated and found.probability is not None else 1.0


def search_again(fit: Pair, found: Evidence) -> Callable[[Classifier, int], list[Trigger]]:
    """Search an edited network again, at the largest size at which the verdict would judge it."""
    from modelmend.probe.again import find_again

    def again(classifier: Classifier, seed: int) -> list[Trigger]:
        return find_again(classifier, fit, found, accused(found), seed=seed)

    return again


def to_unlearn(
    classifier: Classifier, triggers: Sequence[Trigger], fit: Pair, found: Evidence, seed: int
) -> list[Trigger]:
    """Triggers against the accused classes: the suspect's, and those found again on what is left to edit.

    They are not searched for where nothing will be edited.
    """
    known = against(triggers, accused(found))
    return known if chance(found) < DOUBTFUL else [*known, *search_again(fit, found)(classifier, seed + 1)]


def edit_weights(
    suspect: str, samples: str, evidence: str, pruned: str, edited: str, *, seed: int = 0
) -> dict[str, Any]:
    """Activation-guided editing of the weights that still answer the candidate triggers.

    Args:
        suspect: SUSPECT artifact.
        samples: SAMPLES artifact; repair and select splits are read.
        evidence: EVIDENCE artifact.
        pruned: PRUNED artifact.
        edited: Where the EDITED artifact goes.
        seed: Of the repair step.

    Returns:
        Size of the edit and the new content hash.
    """
    from modelmend.editing.edit import EditConfig, edit

    with stage("edit_weights") as progress:
        source, bank = open_suspect(suspect), open_samples(samples)
        artifact, found, triggers = open_evidence(evidence)
        before = read_artifact(pruned, SCHEMAS["pruned"])
        model = open_classifier(before, source.info, expect=before.json("pruning.json")["content_hash"])
        config = EditConfig()
        result = edit(
            model,
            bank["fit"],
            bank["reward"],
            bank["select"],
            to_unlearn(model, triggers, bank["fit"], found, seed),
            config=config,
            seed=seed,
            progress=progress,
            reprobe=search_again(bank["fit"], found),
            reference=source.classifier,
            chance=chance(found),
        )
        inputs = {"suspect": source.artifact, "samples": bank.artifact, "evidence": artifact, "pruned": before}
        params = {"config": config.model_dump(mode="json")}
        return _write_edited(progress, edited, source, result, inputs, params, seed)


def fine_tune(suspect: str, samples: str, evidence: str, edited: str, tuned: str, *, seed: int = 0) -> dict[str, Any]:
    """Fallback: fine-tune the edited model, and the suspect with the same cuts, and keep the better; it is judged once more.

    Args:
        suspect: SUSPECT artifact.
        samples: SAMPLES artifact; repair and select splits are read.
        evidence: EVIDENCE artifact.
        edited: EDITED artifact that the gate sent back.
        tuned: Where the new EDITED artifact goes.
        seed: Of the training.

    Returns:
        Size of the change and the new content hash.
    """
    from modelmend.editing.finetune import FineTuneConfig
    from modelmend.editing.finetune import fine_tune as tune

    with stage("fine_tune") as progress:
        source, bank = open_suspect(suspect), open_samples(samples)
        artifact, found, triggers = open_evidence(evidence)
        before = read_artifact(edited, SCHEMAS["edited"])
        model = open_classifier(before, source.info, expect=before.json("edit.json")["content_hash"])
        fresh = search_again(bank["fit"], found)(model, seed + 2)
        config = FineTuneConfig()
        result = tune(
            model,
            bank["fit"],
            bank["reward"],
            bank["select"],
            [*against(triggers, accused(found)), *fresh],
            config=config,
            seed=seed,
            progress=progress,
            reference=source.classifier,
            chance=chance(found),
        )
        inputs = {"suspect": source.artifact, "samples": bank.artifact, "evidence": artifact, "edited": before}
        params = {"config": config.model_dump(mode="json")}
        return _write_edited(progress, tuned, source, result, inputs, params, seed)


def _write_edited(
    running: Stage,
    path: str,
    source: Suspect,
    result: EditResult,
    inputs: dict[str, Artifact],
    params: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    with output(running, path, "edited", inputs=inputs, params=params, seed=seed) as folder:
        repaired = save_classifier(result.classifier, folder, source.info)
        _save_state(result.classifier, folder / "model.safetensors")
        delta = {name: value.detach().cpu().contiguous() for name, value in result.delta.items()}
        save_file(delta or {"none": torch.zeros(1)}, folder / "delta.safetensors")
        write_json(folder / "edit.json", {**result.log, "step": running.name, "content_hash": repaired})
    return {"content_hash": repaired, "tensors_changed": len(delta)}


def _save_state(classifier: Classifier, path: Path) -> None:
    """Parameters and buffers under the suspect's own names and shapes."""
    state = {name: value.detach().cpu().clone().contiguous() for name, value in classifier.graph.state_dict().items()}
    save_file(state, path)
