"""A zoo on disk: for each model half-precision weights, a sealed trigger and a record; ``manifest.json`` lists them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import nn

from modelmend.artifacts import sha256_file, write_json
from modelmend.errors import InputError
from modelmend.model.architectures import ARCHITECTURES
from modelmend.records import Figure, Record
from modelmend.redteam.train import Infected, Recipe

MANIFEST = "manifest.json"
INFECTED_ABOVE = 0.80
"""A model counts as infected from this true ASR on; below it is listed as a failed attack."""


class ZooRecord(Record):
    """One model of the zoo; ACC and ASR are those of the stored half-precision weights."""

    name: str
    group: str = Field(description="small, full or calibration; nobody measures on calibration")
    recipe: Recipe
    input_shape: tuple[int, int, int]
    num_classes: int
    train_samples: int
    test_samples: int
    acc: Figure
    asr: Figure = Field(default=None, description="true attack success rate; None for a clean model")
    infected: bool
    weights: str = Field(description="file name")
    weights_hash: str
    trigger: str | None = Field(default=None, description="file name of the sealed trigger")
    trigger_hash: str | None = None
    seconds: float
    threads: int
    torch_version: str


def write_weights(module: nn.Module, path: Path) -> None:
    """Write floating tensors as float16 and leave batch counters out; whole or absent."""
    state = {k: v.detach().half().contiguous() for k, v in module.state_dict().items() if v.is_floating_point()}
    work = path.with_name(path.name + ".part")
    save_file(state, work)
    work.replace(path)


def read_weights(arch: str, path: Path, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The module in eval mode and float32, with the stored weights.

    Raises:
        InputError: the file does not fit the architecture.
    """
    module = ARCHITECTURES[arch](input_shape[0], num_classes, input_shape[1])
    try:
        missing, unexpected = module.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot load the weights: {error}", where=path, field=arch) from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise InputError(
            "the weights are of another architecture", where=path, field=", ".join([*missing, *unexpected])
        )
    return module.eval()


def halved(module: nn.Module) -> None:
    """Round a module's floating tensors to float16 precision, in place."""
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half().float())


def write_model(
    folder: Path,
    infected: Infected,
    *,
    name: str,
    group: str,
    sizes: tuple[int, int],
    shape: tuple[int, int, int],
    classes: int,
) -> ZooRecord:
    """Write weights and sealed trigger, then the record that makes the model count as finished.

    Args:
        folder: The zoo.
        infected: Already rounded by ``halved`` and measured after that.
        name: Of the model; its files start with it.
        group: Suite.
        sizes: Training and test samples.
        shape: Input shape.
        classes: Number of classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{name}.safetensors"
    write_weights(infected.module, weights)
    trigger = None
    if infected.sealed is not None:
        trigger = folder / f"{name}.trigger.safetensors"
        infected.sealed.write(trigger)
    record = ZooRecord(
        name=name,
        group=group,
        recipe=infected.recipe,
        input_shape=shape,
        num_classes=classes,
        train_samples=sizes[0],
        test_samples=sizes[1],
        acc=infected.acc,
        asr=infected.asr,
        infected=infected.asr is not None and infected.asr >= INFECTED_ABOVE,
        weights=weights.name,
        weights_hash=sha256_file(weights),
        trigger=None if trigger is None else trigger.name,
        trigger_hash=None if trigger is None else sha256_file(trigger),
        seconds=round(infected.seconds, 1),
        threads=torch.get_num_threads(),
        torch_version=torch.__version__,
    )
    part = folder / f"{name}.json.part"
    record.write(part)
    part.replace(folder / f"{name}.json")
    write_manifest(folder)
    return record


def read_records(folder: Path) -> list[ZooRecord]:
    """Records of all finished models, by name."""
    return [ZooRecord.read(path) for path in sorted(folder.glob("*.json")) if path.name != MANIFEST]


CORE_GROUPS = ("small", "calibration")
"""What is kept in the repository; the rest is trained again from its recipe."""


def publish(source: Path, destination: Path, groups: Sequence[str] = CORE_GROUPS) -> list[ZooRecord]:
    """Copy finished models that ``destination`` lacks or holds in another form; each record comes last.

    Args:
        source: A zoo.
        destination: Another.
        groups: Models of these groups only.

    Returns:
        The records copied.
    """
    destination.mkdir(parents=True, exist_ok=True)
    held = {record.name: record for record in read_records(destination)}
    copied = []
    for record in read_records(source):
        if held.get(record.name) == record or record.group not in groups:
            continue
        for name, expected in ((record.weights, record.weights_hash), (record.trigger, record.trigger_hash)):
            if name is None:
                continue
            if sha256_file(source / name) != expected:
                raise InputError("the file is not the one that was measured", where=source / name, fix="train it again")
            part = destination / f"{name}.part"
            part.write_bytes((source / name).read_bytes())
            part.replace(destination / name)
        record.write(destination / f"{record.name}.json.part")
        (destination / f"{record.name}.json.part").replace(destination / f"{record.name}.json")
        copied.append(record)
    write_manifest(destination)
    return copied


def write_manifest(folder: Path) -> None:
    """Collect the records into ``manifest.json``; whole or absent."""
    part = folder / f"{MANIFEST}.part"
    write_json(part, {"format": 1, "models": [r.model_dump(mode="json") for r in read_records(folder)]})
    part.replace(folder / MANIFEST)
