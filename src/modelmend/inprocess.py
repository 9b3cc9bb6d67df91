"""The in-process runner: the same steps as the pipeline, in one process, taking up again what is already whole."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from modelmend import __version__, steps
from modelmend.artifacts import SCHEMAS, read_artifact
from modelmend.errors import ArtifactError, ModelmendError
from modelmend.request import RepairRequest, check_request
from modelmend.rundir import RunDirectory, publish


def run_in_process(request: RepairRequest, run: RunDirectory) -> str:
    """Run every stage of a repair.

    A stage whose artifact is whole, of this code version and made from the same inputs is not repeated; import,
    validation, judgement and registration always run.

    Args:
        request: What to do.
        run: A prepared run directory.

    Returns:
        The verdict: ``pass``, ``refuse`` or ``fallback`` (a fallback that was refused again reads ``refuse``).

    Raises:
        ModelmendError: any stage's error, after a report of the failure was written.
    """
    try:
        return _stages(request, run)
    except Exception as error:
        _report_failure(run, error)
        raise


def _stages(request: RepairRequest, run: RunDirectory) -> str:
    check_request(request)
    at = {name: str(run.stage(name)) for name in SCHEMAS}
    seed = request.seed
    steps.import_model(
        request.model_uri,
        at["suspect"],
        arch=request.arch,
        input_shape=request.input_shape,
        mean=request.mean,
        std=request.std,
        input_range=request.input_range,
        kind=request.kind,
        tracking_uri=request.tracking_uri,
    )
    steps.validate_samples(
        at["suspect"],
        request.samples_uri,
        at["samples"],
        measure_samples_uri=request.measure_samples_uri,
        known_trigger_uri=request.known_trigger_uri,
        seed=seed,
    )

    def once(name: str, roles: tuple[str, ...], step: Callable[..., Any], *paths: str, **options: Any) -> None:
        if not _whole(run, name, roles):
            step(*paths, **options)

    suspect, samples, evidence = at["suspect"], at["samples"], at["evidence"]
    once(
        "evidence",
        ("suspect", "samples"),
        steps.probe_backdoor,
        suspect,
        samples,
        evidence,
        mode=request.probe_mode,
        seed=seed,
    )
    once(
        "activations",
        ("suspect", "samples", "evidence"),
        steps.extract_activations,
        suspect,
        samples,
        evidence,
        at["activations"],
    )
    roles = ("suspect", "samples", "evidence", "activations")
    paths = (suspect, samples, evidence, at["activations"], at["pruned"])
    once("pruned", roles, steps.prune_neurons, *paths, policy_dir=request.pruning_policy, seed=seed)
    roles = ("suspect", "samples", "evidence", "pruned")
    once("edited", roles, steps.edit_weights, suspect, samples, evidence, at["pruned"], at["edited"], seed=seed)

    verdict = _judge(request, run, "", looks=1)
    suffix = ""
    if verdict == "fallback":
        suffix = "_2"
        steps.fine_tune(suspect, samples, evidence, at["edited"], str(run.stage("edited_2")), seed=seed)
        verdict = _judge(request, run, suffix, looks=2)
    final = {name: str(run.stage(name + suffix)) for name in ("edited", "scorecard", "privacy", "decision")}
    steps.register_model(
        suspect,
        samples,
        final["edited"],
        final["scorecard"],
        final["privacy"],
        final["decision"],
        at["registration"],
        name=request.name,
        policy_uri=request.policy_uri,
        tracking_uri=request.tracking_uri,
        configuration=request.configuration,
        seed=seed,
    )
    steps.write_report(
        str(run.path / "report.html"),
        {**at, **final},
        tracking_uri=request.tracking_uri,
    )
    publish(run)
    return verdict


def _judge(request: RepairRequest, run: RunDirectory, suffix: str, *, looks: int) -> str:
    at = {name: str(run.stage(name)) for name in ("suspect", "samples", "evidence", "pruned")}
    new = {name: str(run.stage(name + suffix)) for name in ("edited", "scorecard", "privacy", "decision")}
    steps.measure_repair(
        at["suspect"],
        at["samples"],
        at["evidence"],
        at["pruned"],
        new["edited"],
        new["scorecard"],
        known_trigger_uri=request.known_trigger_uri,
        looks=looks,
        seed=request.seed,
    )
    steps.audit_privacy(
        at["suspect"],
        at["samples"],
        new["edited"],
        new["privacy"],
        members_uri=request.members_uri,
        nonmembers_uri=request.nonmembers_uri,
        policy_uri=request.policy_uri,
        looks=looks,
        seed=request.seed,
    )
    return steps.gate_repair(
        at["samples"],
        new["scorecard"],
        new["privacy"],
        new["decision"],
        policy_uri=request.policy_uri,
        seed=request.seed,
    )


def _whole(run: RunDirectory, name: str, roles: tuple[str, ...]) -> bool:
    """Whether a stage's artifact can be taken as it is."""
    try:
        there = read_artifact(run.stage(name), SCHEMAS[name])
        wanted = {role: read_artifact(run.stage(role), SCHEMAS[role], verify=False).digest for role in roles}
    except ArtifactError:
        return False
    return there.code_version == __version__ and dict(there.inputs) == wanted


def _report_failure(run: RunDirectory, error: Exception) -> None:
    if isinstance(error, ModelmendError):
        told = {"message": error.message, "where": error.where, "field": error.field, "fix": error.fix}
    else:
        told = {"message": f"{type(error).__name__}: {error}"}
    write_failure_report(run, {"stage": "repair", **told})


def write_failure_report(run: RunDirectory, error: dict[str, Any]) -> None:
    """Write the report of a run that stopped, with what was measured until then; never raises."""
    paths = {name: str(run.final(name)) for name in SCHEMAS}
    with contextlib.suppress(Exception):  # the first error is the one to tell
        steps.write_report(str(run.path / "report.html"), paths, error=error)
