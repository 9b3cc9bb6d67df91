"""Opening and filling the artifacts that steps hand to each other: one place that knows file names and schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from modelmend.artifacts import SCHEMAS, Artifact, read_artifact, write_json, writing
from modelmend.errors import ArtifactError
from modelmend.events import Stage
from modelmend.model.classifier import Classifier
from modelmend.model.hashing import content_hash
from modelmend.model.pt2 import read_pt2, write_pt2
from modelmend.records import Evidence, SuspectInfo
from modelmend.samples.data import Samples

if TYPE_CHECKING:
    from modelmend.probe.trigger import Trigger

Part = Literal["fit", "reward", "select", "gate"]
PARTS: tuple[Part, ...] = ("fit", "reward", "select", "gate")


@dataclass(frozen=True)
class Suspect:
    """The inspection clone: its record, its runnable form, the artifact it came from."""

    artifact: Artifact
    info: SuspectInfo
    classifier: Classifier


@dataclass(frozen=True)
class SampleBank:
    """Validated samples with their splits; the gate part is asked for by name, so that its readers can be found."""

    artifact: Artifact
    samples: Samples
    part: Tensor

    def __getitem__(self, part: Part) -> tuple[Tensor, Tensor]:
        """``(x, y)`` of one split."""
        index = (self.part == PARTS.index(part)).nonzero().squeeze(1)
        return self.samples.x[index], self.samples.y[index]

    def subset(self, *parts: Part) -> Samples:
        """The samples of some splits together."""
        wanted = torch.isin(self.part, torch.tensor([PARTS.index(p) for p in parts], dtype=self.part.dtype))
        return self.samples.subset(wanted.nonzero().squeeze(1))

    @property
    def hash(self) -> str:
        """Content hash of the samples."""
        return str(self.artifact.json("splits.json")["hash"])

    @property
    def counts(self) -> dict[str, int]:
        """Samples a split, and how many of the gate's were given for measuring only."""
        told = self.artifact.json("splits.json")
        return {**told["counts"], "measured_apart": told["measured_apart"]}


def output(
    running: Stage,
    path: str | Path,
    kind: str,
    *,
    inputs: Mapping[str, Artifact] | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> AbstractContextManager[Path]:
    """``writing`` for a step: the stage is the producer, and its whole cost is recorded.

    Args:
        running: The stage.
        path: Destination directory.
        kind: Key of ``SCHEMAS``.
        inputs: The artifacts that this one is made from, by role.
        params: Settings that shaped the result.
        seed: Of every random draw.
    """
    return writing(
        path, SCHEMAS[kind], producer=running.name, inputs=inputs, params=params, seed=seed, meter=running.meter
    )


def device() -> torch.device:
    """The accelerator when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def open_suspect(path: str | Path) -> Suspect:
    """Open a SUSPECT artifact; the model's content hash is recomputed."""
    artifact = read_artifact(path, SCHEMAS["suspect"])
    info = SuspectInfo.read(artifact.file("suspect.json"))
    return Suspect(artifact, info, open_classifier(artifact, info, expect=info.content_hash))


def open_classifier(artifact: Artifact, info: SuspectInfo, *, expect: str | None = None) -> Classifier:
    """The model of an artifact with the suspect's preprocessing, on the device, parameters frozen."""
    path = artifact.file("model.pt2")
    graph = read_pt2(path)
    if expect is not None and (actual := content_hash(graph)) != expect:
        raise ArtifactError(f"the model is {actual}, not {expect}", where=path, fix="import the model again")
    model = Classifier(graph, info.preprocessing, info.num_classes, probabilities=info.outputs_probabilities)
    return model.to(device()).frozen()


def save_classifier(classifier: Classifier, folder: Path, info: SuspectInfo) -> str:
    """Write ``model.pt2`` (read back and compared by the writer); returns the content hash."""
    graph = classifier.graph.cpu()
    write_pt2(graph, folder / "model.pt2", info.input_shape)
    classifier.graph.to(device())
    return content_hash(graph)


def save_samples(folder: Path, samples: Samples, part: Tensor, extra: dict[str, Any]) -> None:
    """Fill a SAMPLES artifact: the samples, the split of each, and a record with counts."""
    samples.save(folder)
    save_file({"part": part.contiguous()}, folder / "splits.safetensors")
    counts = {name: int((part == i).sum()) for i, name in enumerate(PARTS)}
    write_json(folder / "splits.json", {"source": samples.source, "counts": counts, **extra})


def open_samples(path: str | Path) -> SampleBank:
    """Open a SAMPLES artifact."""
    artifact = read_artifact(path, SCHEMAS["samples"])
    part = load_file(artifact.file("splits.safetensors"))["part"]
    return SampleBank(artifact, Samples.load(artifact.path), part)


def save_triggers(path: Path, triggers: list[Trigger]) -> None:
    """Write candidate triggers as safetensors: tensors ``<index>.<name>``, families, targets and leads in the header."""
    tensors = {f"{i}.{k}": v.detach().cpu().contiguous() for i, t in enumerate(triggers) for k, v in t.state().items()}
    heads = [{"family": t.family, "target": t.target, "lead": t.lead} for t in triggers]
    save_file(tensors or {"none": torch.zeros(1)}, path, metadata={"triggers": json.dumps(heads)})


def load_triggers(path: Path) -> list[Trigger]:
    """Read candidate triggers back."""
    from modelmend.probe.trigger import Trigger

    with safe_open(path, framework="pt") as file:
        heads = json.loads((file.metadata() or {}).get("triggers", "[]"))
        names = list(file.keys())
        states = [
            {n.split(".", 1)[1]: file.get_tensor(n) for n in names if n.startswith(f"{i}.")} for i in range(len(heads))
        ]
    return [Trigger.from_state(h["family"], h["target"], s, h.get("lead")) for h, s in zip(heads, states, strict=True)]


def open_evidence(path: str | Path) -> tuple[Artifact, Evidence, list[Trigger]]:
    """Open an EVIDENCE artifact with its candidate triggers on the device."""
    artifact = read_artifact(path, SCHEMAS["evidence"])
    return artifact, Evidence.read(artifact.file("evidence.json")), load_triggers(artifact.file("triggers.safetensors"))


def open_known_trigger(uri: str, source: Suspect, work: Path) -> Trigger:
    """The known trigger, fetched if it is remote."""
    from modelmend import storage
    from modelmend.probe.known import read_known_trigger

    told = source.info
    image = told.preprocessing.kind == "image"
    return read_known_trigger(
        storage.fetch(uri, work), input_shape=told.input_shape, num_classes=told.num_classes, image=image
    )
