"""Looking: is there a backdoor, and how do the neurons answer to clean and to probe-triggered samples."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save_file

from modelmend.artifacts import write_json
from modelmend.events import stage
from modelmend.steps.stores import device, open_evidence, open_samples, open_suspect, output, save_triggers


def probe_backdoor(suspect: str, samples: str, evidence: str, *, mode: str = "full", seed: int = 0) -> dict[str, Any]:
    """Probe the suspect for a backdoor without knowing the trigger.

    Args:
        suspect: SUSPECT artifact.
        samples: SAMPLES artifact; fit and reward splits are read, of the select split only how often each class is expected.
        evidence: Where the EVIDENCE artifact goes.
        mode: ``full`` or ``screen``.
        seed: Of every random draw.

    Returns:
        Verdict, probability, suspects.
    """
    from modelmend.probe.pictures import write_pictures
    from modelmend.probe.run import probe

    with stage("probe_backdoor") as progress:
        source, bank = open_suspect(suspect), open_samples(samples)
        pairs = bank["fit"], bank["reward"]
        result = probe(source.classifier, *pairs, mode=mode, seed=seed, progress=progress, more=bank["select"])
        inputs = {"suspect": source.artifact, "samples": bank.artifact}
        params = {"mode": mode}
        with output(progress, evidence, "evidence", inputs=inputs, params=params, seed=seed) as folder:
            result.evidence.write(folder / "evidence.json")
            save_triggers(folder / "triggers.safetensors", result.triggers)
            write_pictures(folder, result.triggers, bank["reward"][0])
        found = result.evidence
        return {"backdoor": found.backdoor, "probability": found.probability or 0.0, "suspects": list(found.suspects)}


def extract_activations(suspect: str, samples: str, evidence: str, activations: str) -> dict[str, Any]:
    """Stream per-neuron statistics of clean and of probe-triggered samples.

    Args:
        suspect: SUSPECT artifact.
        samples: SAMPLES artifact; the repair split is read.
        evidence: EVIDENCE artifact with the candidate triggers.
        activations: Where the ACTIVATIONS artifact goes.

    Returns:
        Number of nodes and channels.
    """
    from modelmend.model.activations import collect
    from modelmend.model.groups import find_groups

    with stage("extract_activations") as progress:
        source, bank = open_suspect(suspect), open_samples(samples)
        artifact, _, triggers = open_evidence(evidence)
        groups = find_groups(source.classifier.graph, source.info.input_shape)
        sites = tuple(dict.fromkeys(site.node for group in groups for site in group.sites))
        repair = bank.subset("fit", "reward")
        runs: list[tuple[str, torch.Tensor]] = [("clean", repair.x)]
        with torch.no_grad():
            for number, trigger in enumerate(triggers):
                runs.append((f"trigger{number}", trigger(repair.x.to(device())).cpu()))
        tensors: dict[str, torch.Tensor] = {}
        for done, (name, x) in enumerate(runs):
            progress(name, done, len(runs))
            found = collect(source.classifier, x, repair.y, sites, sketch=name == "clean")
            tensors |= {f"{name}/{key}": value.contiguous().cpu() for key, value in found.tensors().items()}
        inputs = {"suspect": source.artifact, "samples": bank.artifact, "evidence": artifact}
        with output(progress, activations, "activations", inputs=inputs) as folder:
            save_file(tensors or {"none": torch.zeros(1)}, folder / "statistics.safetensors")
            summary = {"nodes": list(sites), "runs": [name for name, _ in runs], "samples": len(repair)}
            write_json(folder / "activations.json", summary)
        progress("done", len(runs), len(runs))
        return {"nodes": len(sites), "groups": len(groups)}
