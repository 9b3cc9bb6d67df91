"""The Python way in: ``modelmend.repair(model, samples, policy=...)`` and ``modelmend.load(path)``."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelmend.errors import InputError
from modelmend.events import listening
from modelmend.progress import Progress
from modelmend.records import Decision, Registration, Scorecard
from modelmend.request import RepairRequest
from modelmend.rundir import make_folder, outcome, prepare

if TYPE_CHECKING:
    import torch
    from torch.fx import GraphModule


@dataclass(frozen=True)
class RepairResult:
    """What a repair came to.

    Attributes:
        verdict: ``pass`` or ``refuse``.
        decision: Every check with its number and bound.
        scorecard: Everything measured on the gate split.
        registration: What happened at the registry.
        run_dir: Folder with ``repaired.pt2``, ``repaired.safetensors``, ``decision.json``, ``report.html``, stages.
    """

    verdict: str
    decision: Decision
    scorecard: Scorecard
    registration: Registration
    run_dir: Path

    @property
    def passed(self) -> bool:
        """Whether every gate passed."""
        return self.verdict == "pass"

    def model(self) -> GraphModule:
        """The repaired model; takes what the suspect took."""
        from modelmend.model.pt2 import read_pt2

        return read_pt2(self.run_dir / "repaired.pt2")


def load(path: str | Path, *, arch: str | None = None, input_shape: Sequence[int] | None = None) -> GraphModule:
    """Read a model as data, running none of its code.

    Args:
        path: ``.pt2``, ``.safetensors``, ``.pth``/``.pt`` or an MLflow model directory.
        arch: For a state dict: built-in name or ``package.module:callable`` of code that you trust.
        input_shape: Shape of one sample where the file does not say it.

    Returns:
        A callable module: batch in, logits out.

    Raises:
        ModelRefused: the file holds more than data, or breaks a bound.
        ModelUnsupported: it is well-formed but outside what modelmend can work on.
    """
    from modelmend.model.load import load as read

    return read(Path(path), arch=arch, input_shape=tuple(input_shape) if input_shape else None).graph


def repair(
    model: str | Path | torch.nn.Module,
    samples: str | Path | tuple[Any, Any],
    *,
    policy: str | Path | None = None,
    name: str | None = None,
    tracking_uri: str | None = None,
    run_dir: str | Path | None = None,
    seed: int = 0,
    arch: str | None = None,
    input_shape: Sequence[int] | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    input_range: Sequence[float] = (),
    members: str | Path | None = None,
    nonmembers: str | Path | None = None,
    measure_samples: str | Path | None = None,
    known_trigger: str | Path | None = None,
    probe_mode: str = "full",
    pruning_policy: str | Path | None = None,
    progress: Progress | None = None,
) -> RepairResult:
    """Repair a suspect classifier in this process and judge the result.

    The model is never changed: a clone is repaired. Same steps and verdict as the pipeline.

    Args:
        model: Path, URI, or an ``nn.Module`` of your own (exported once, in eval mode).
        samples: Path, URI, or ``(x, y)`` arrays: ``x`` ``(N, C, H, W)`` uint8 or float 0..1, ``y`` ``(N,)``.
        policy: Policy file or packaged name; ``default`` when not given.
        name: Registered model in MLflow; without it nothing is registered.
        tracking_uri: MLflow server or database.
        run_dir: Where the run is kept; a fresh folder under ``modelmend-runs/`` when not given.
        seed: Of every random draw.
        arch: Architecture of a state dict.
        input_shape: Shape of one sample where the model file does not say it.
        mean: Mean per channel of the model's normalisation.
        std: Standard deviation per channel.
        input_range: Range that 0..1 samples are scaled to before normalising, such as ``(0, 255)``.
        members: Samples that the suspect was trained on.
        nonmembers: Samples of the same kind that it was not trained on.
        measure_samples: More clean samples that only the final measurement reads.
        known_trigger: File of a trigger that you know; only the final measurement reads it.
        probe_mode: ``full`` or ``screen``.
        pruning_policy: Folder that ``modelmend policy train`` wrote; without it the search starts untrained.
        progress: Called often with ``(message, done, total)``.

    Returns:
        The verdict with everything behind it; a refusal is a result, not an error.

    Raises:
        ModelmendError: unusable input, unreachable registry, or a stage that failed.
    """
    from modelmend.inprocess import run_in_process

    with contextlib.ExitStack() as stack:
        if progress is not None:
            tell = progress

            def listener(event: dict[str, Any]) -> None:
                if event["event"] == "progress":
                    tell(f"{event['stage']}: {event['message']}", event["done"], event["total"])

            stack.enter_context(listening(listener))
        folder = make_folder(Path(run_dir), "run_dir") if run_dir else fresh_run_dir("repair")
        samples_uri = str(samples) if isinstance(samples, str | Path) else _store_samples(samples, folder)
        if isinstance(model, str | Path):
            model_uri = str(model)
        else:
            model_uri = _store_module(model, samples_uri, input_shape, folder)
        request = RepairRequest(
            model_uri=model_uri,
            samples_uri=samples_uri,
            name=name or "",
            policy_uri=str(policy or ""),
            tracking_uri=tracking_uri or "",
            arch=arch or "",
            input_shape=tuple(int(v) for v in input_shape or ()),
            mean=tuple(mean),
            std=tuple(std),
            input_range=tuple(input_range),
            members_uri=str(members or ""),
            nonmembers_uri=str(nonmembers or ""),
            measure_samples_uri=str(measure_samples or ""),
            known_trigger_uri=str(known_trigger or ""),
            probe_mode=probe_mode,
            pruning_policy=str(pruning_policy or ""),
            seed=seed,
        )
        run = prepare(folder, request)
        verdict = run_in_process(request, run)
        decision, scorecard, registration = outcome(run)
    if decision is None or scorecard is None or registration is None:
        raise InputError("the run left no decision", where=run.path, fix="see report.html in the run directory")
    return RepairResult(verdict, decision, scorecard, registration, run.path)


def fresh_run_dir(stem: str) -> Path:
    """A new, empty directory ``modelmend-runs/<stem>-<time>`` under the current one."""
    parent = Path("modelmend-runs")
    try:
        parent.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{stem}-{time.strftime('%Y%m%d-%H%M%S')}-", dir=parent)).resolve()
    except OSError as error:
        raise InputError(
            f"cannot write here: {error.strerror}", where=parent.resolve(), fix="give --run-dir"
        ) from error


def _store_samples(samples: tuple[Any, Any], folder: Path) -> str:
    import numpy as np

    if not isinstance(samples, tuple | list) or len(samples) != 2:
        raise InputError(
            f"a {type(samples).__name__} instead of two arrays", field="samples", fix="give (x, y), a path or a URI"
        )
    x, y = (np.asarray(part.detach().cpu() if hasattr(part, "detach") else part) for part in samples)
    np.savez_compressed(folder / "samples.npz", x=x, y=y)
    return str(folder / "samples.npz")


def _store_module(module: torch.nn.Module, samples_uri: str, input_shape: Sequence[int] | None, folder: Path) -> str:
    import torch

    from modelmend.model.export import export_module
    from modelmend.model.pt2 import write_pt2

    if not isinstance(module, torch.nn.Module):
        raise InputError(
            f"a {type(module).__name__} is no model", field="model", fix="give a path, a URI or a torch.nn.Module"
        )
    if input_shape:
        shape = tuple(int(v) for v in input_shape)
    else:
        from modelmend.samples.read import read_samples

        shape = tuple(read_samples(samples_uri).x.shape[1:])
    write_pt2(export_module(module, shape), folder / "suspect.pt2", shape)
    return str(folder / "suspect.pt2")
