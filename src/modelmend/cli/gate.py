"""``modelmend gate``: the evidence of a run under another policy."""

from __future__ import annotations

import importlib.resources
import tempfile
from pathlib import Path

from rich.console import Console

from modelmend.cli.repair import show_checks, show_verdict
from modelmend.errors import InputError
from modelmend.records import Decision, Registration
from modelmend.rundir import RunDirectory, open_run


def gate_command(run_dir: Path, policy: str, name: str, tracking_uri: str, console: Console) -> int:
    """Judge again, print why, register only on a pass with a name; returns the exit code."""
    run = open_run(run_dir)
    missing = [stage for stage in ("samples", "scorecard", "privacy") if not run.has(stage)]
    if missing:
        raise InputError(f"the run has no {', '.join(missing)}", where=run.path, fix="finish the run first")
    verdict, decision, registration = judge_again(run, policy, name, tracking_uri)
    show_checks(console, decision)
    show_verdict(console, decision, registration)
    return 0 if verdict == "pass" else 1


def judge_again(
    run: RunDirectory, policy: str, name: str, tracking_uri: str
) -> tuple[str, Decision, Registration | None]:
    """Judge a run's evidence by a policy into ``gates/<policy hash>``; register on a pass with a name."""
    from modelmend import steps
    from modelmend.gate.policy import load_policy
    from modelmend.request import RepairRequest
    from modelmend.steps.gating import local_policy

    request = RepairRequest.read(run.path / "run.json")
    with tempfile.TemporaryDirectory() as work:
        digest = load_policy(local_policy(policy, Path(work))).hash().removeprefix("sha256:")[:12]
    folder = run.path / "gates" / digest
    verdict = steps.gate_repair(
        str(run.stage("samples")),
        str(run.final("scorecard")),
        str(run.final("privacy")),
        str(folder / "decision"),
        policy_uri=policy,
        seed=request.seed,
    )
    decision = Decision.read(folder / "decision" / "decision.json")
    if verdict != "pass" or not name:
        return verdict, decision, None
    steps.register_model(
        str(run.stage("suspect")),
        str(run.stage("samples")),
        str(run.final("edited")),
        str(run.final("scorecard")),
        str(run.final("privacy")),
        str(folder / "decision"),
        str(folder / "registration"),
        name=name,
        policy_uri=policy,
        tracking_uri=tracking_uri or request.tracking_uri,
        configuration=request.configuration,
        seed=request.seed,
    )
    return verdict, decision, Registration.read(folder / "registration" / "registration.json")


def policy_command(name: str, samples: bool, console: Console) -> int:
    """Print a policy's text after checking it; with ``samples`` how many gate samples it needs."""
    from modelmend.gate.policy import load_policy
    from modelmend.gate.power import needed

    checked = load_policy(name)
    if samples:
        console.print(
            f"policy {checked.name!r} needs {needed(checked)} gate samples (40 % of the clean samples)", highlight=False
        )
        return 0
    packaged = importlib.resources.files("modelmend") / "gate" / "policies" / f"{name}.yaml"
    if packaged.is_file():
        console.print(packaged.read_text(encoding="utf-8"), markup=False, highlight=False, soft_wrap=True, end="")
    else:
        console.print(f"policy {checked.name!r} is valid: {checked.hash()}", highlight=False, soft_wrap=True)
    return 0
