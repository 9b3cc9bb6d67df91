"""Taking in: the suspect becomes an inspection clone, the samples become checked splits."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from modelmend.errors import InputError, SamplesError
from modelmend.events import stage
from modelmend.records import Preprocessing, SuspectInfo
from modelmend.steps.stores import PARTS, open_known_trigger, open_suspect, output, save_classifier, save_samples


def preprocessing(
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    input_range: Sequence[float] = (),
    kind: str = "image",
) -> Preprocessing:
    """Build the preprocessing record from what the user told; empty means the default (0..1, no normalisation)."""
    told: dict[str, Any] = {"kind": kind}
    if mean:
        told["mean"] = tuple(float(v) for v in mean)
    if std:
        told["std"] = tuple(float(v) for v in std)
    if input_range:
        told["input_range"] = tuple(float(v) for v in input_range)
    try:
        return Preprocessing(**told)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"unusable preprocessing: {first['msg'].removeprefix('Value error, ')}",
            field=".".join(map(str, first["loc"])),
            fix="see `modelmend repair --help`",
        ) from error


def import_model(
    model_uri: str,
    suspect: str,
    *,
    arch: str = "",
    input_shape: Sequence[float] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    input_range: Sequence[float] = (),
    kind: str = "image",
    tracking_uri: str = "",
) -> dict[str, Any]:
    """Make the inspection clone of a suspect model; no code that it carries is run.

    Args:
        model_uri: Path, ``s3://``, ``models:/name/version`` or ``runs:/...`` of the suspect.
        suspect: Where the SUSPECT artifact goes.
        arch: Architecture for a state dict: built-in name or ``package.module:callable`` of trusted code.
        input_shape: One sample's shape, such as ``3, 32, 32``; read off the model where it says so.
        mean: Per-channel mean of the model's normalisation.
        std: Per-channel standard deviation.
        input_range: What 0..1 samples are scaled to before normalising, such as ``0, 255``.
        kind: ``image`` or ``raw``.
        tracking_uri: MLflow server for ``models:/`` URIs.

    Returns:
        The suspect's record as plain values.
    """
    from modelmend import storage
    from modelmend.model.branches import split_branches
    from modelmend.model.classifier import Classifier
    from modelmend.model.cost import count
    from modelmend.model.groups import find_groups
    from modelmend.model.hashing import content_hash
    from modelmend.model.load import load
    from modelmend.model.scan import outputs_probabilities

    with stage("import_model") as progress, tempfile.TemporaryDirectory() as work:
        told = preprocessing(mean, std, input_range, kind)
        shape = tuple(int(v) for v in input_shape) or None
        progress("fetching", 0, 3)
        path = storage.fetch(model_uri, Path(work), tracking_uri=tracking_uri or None)
        loaded = load(path, arch=arch or None, input_shape=shape)
        progress("reading the graph", 1, 3)
        graph = loaded.graph
        cost = count(graph, loaded.input_shape)
        groups = split_branches(graph, find_groups(graph, loaded.input_shape))
        channels = loaded.input_shape[0] if len(loaded.input_shape) > 1 else 1
        for field, values in (("mean", told.mean), ("std", told.std)):
            if told.kind == "image" and len(values) not in (1, channels):
                raise InputError(
                    f"{len(values)} values for {channels} channels", field=field, fix="give one value or one a channel"
                )
        info = SuspectInfo(
            source=model_uri,
            format=loaded.format,
            content_hash=content_hash(graph),
            file_hash=loaded.file_hash,
            input_shape=loaded.input_shape,
            num_classes=loaded.num_classes,
            dtype=str(Classifier(graph, told, loaded.num_classes).dtype).removeprefix("torch."),
            parameters=cost.parameters,
            macs=cost.macs,
            outputs_probabilities=outputs_probabilities(graph, loaded.input_shape),
            has_batch_norm=any("batch_norm" in str(node.target) for node in graph.graph.nodes),
            prunable_groups=len(groups),
            preprocessing=told,
            findings=tuple(loaded.findings),
        )
        progress("writing the clone", 2, 3)
        params = {"model": model_uri, "arch": arch}
        with output(progress, suspect, "suspect", params=params) as folder:
            save_classifier(Classifier(graph, told, loaded.num_classes), folder, info)
            info.write(folder / "suspect.json")
        progress("done", 3, 3)
        return {"content_hash": info.content_hash, "num_classes": info.num_classes, "parameters": info.parameters}


def validate_samples(
    suspect: str,
    samples_uri: str,
    samples: str,
    *,
    measure_samples_uri: str = "",
    known_trigger_uri: str = "",
    seed: int = 0,
) -> dict[str, Any]:
    """Check the clean samples, measure whether they fit the model's domain, split them.

    Args:
        suspect: SUSPECT artifact.
        samples_uri: Parquet, image folder or npz, local or ``s3://``.
        samples: Where the SAMPLES artifact goes.
        measure_samples_uri: More samples that only the gate split gets.
        known_trigger_uri: Only checked here, so that a file of no use stops the run early; ``measure_repair`` reads it.
        seed: Of the split.

    Returns:
        Counts a split, accuracy and domain match.
    """
    from modelmend.domain.match import domain_match
    from modelmend.samples.duplicates import unseen
    from modelmend.samples.read import read_samples
    from modelmend.samples.split import split
    from modelmend.samples.validate import Checked, check_accuracy, validate

    with stage("validate_samples") as progress, tempfile.TemporaryDirectory() as work:
        source = open_suspect(suspect)
        info = source.info
        progress("reading", 0, 4)
        if known_trigger_uri:
            open_known_trigger(known_trigger_uri, source, Path(work))

        def given(uri: str) -> Checked:
            told = info.preprocessing
            read = read_samples(
                uri, kind=told.kind, input_shape=info.input_shape, input_range=told.input_range, workdir=Path(work)
            )
            progress("checking", 1, 4)
            return validate(read, input_shape=info.input_shape, num_classes=info.num_classes)

        checked = given(samples_uri)
        bank = checked.samples
        part = torch.full((len(bank),), -1, dtype=torch.int8)
        splits = split(bank, seed)
        for number, name in enumerate(PARTS):
            part[getattr(splits, name)] = number
        apart = 0
        if measure_samples_uri:
            more = given(measure_samples_uri).samples
            fresh = unseen(bank, more)
            if not len(fresh):
                raise SamplesError(
                    "every measuring sample is a repair sample, too, or nearly equal to one",
                    where=measure_samples_uri,
                    fix="give other samples",
                )
            apart = len(fresh)
            bank = bank.join(more.subset(fresh))
            part = torch.cat([part, torch.full((len(fresh),), PARTS.index("gate"), dtype=torch.int8)])
        progress("accuracy and domain", 2, 4)
        clean = check_accuracy(source.classifier, bank)
        match = domain_match(source.classifier, bank)
        if match.outcome == "mismatch":
            progress.warn(f"the clean samples do not fit the model, so it will be refused: {match.reason}")
        progress("writing", 3, 4)
        content = bank.hash()
        inputs = {"suspect": source.artifact}
        with output(progress, samples, "samples", inputs=inputs, seed=seed) as folder:
            told = {"hash": content, "accuracy": clean, "classes": info.num_classes, "measured_apart": apart}
            save_samples(folder, bank, part, told)
            checked.validation.write(folder / "validation.json")
            match.write(folder / "domain.json")
        progress("done", 4, 4)
        return {"hash": content, "accuracy": clean, "samples": len(bank)}
