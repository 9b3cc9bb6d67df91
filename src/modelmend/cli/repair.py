"""``modelmend repair``: from options to a run, and the table at its end."""

from __future__ import annotations

import difflib
import sys
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from modelmend.cli.view import TITLES, StageView
from modelmend.errors import InputError, ModelmendError
from modelmend.gate.policy import packaged_policies
from modelmend.records import Decision, Measured, Registration, Scorecard
from modelmend.request import RepairRequest, check_request
from modelmend.rundir import RunDirectory, outcome, prepare

CONFIG_NAMES = {
    "model": "model_uri",
    "samples": "samples_uri",
    "policy": "policy_uri",
    "members": "members_uri",
    "nonmembers": "nonmembers_uri",
    "measure_samples": "measure_samples_uri",
    "known_trigger": "known_trigger_uri",
    "probe": "probe_mode",
}
NUMBER_LISTS = ("input_shape", "mean", "std", "input_range")
PATHS = (
    "model_uri",
    "samples_uri",
    "policy_uri",
    "members_uri",
    "nonmembers_uri",
    "measure_samples_uri",
    "known_trigger_uri",
    "pruning_policy",
)
"""Options that may be paths of this machine; a run directory keeps them whole."""


def repair_command(
    told: dict[str, Any], written: set[str], config: Path | None, run_dir: Path | None, runner: str, console: Console
) -> int:
    """Run a repair and print its result; returns the exit code."""
    from modelmend.api import fresh_run_dir

    request = build_request(told, written, config)
    check_runner(runner)
    if request.pruning_policy and runner != "in-process":
        raise InputError(
            "the compiled pipeline takes no pruning policy", field="pruning_policy", fix="use --runner in-process"
        )
    if ":" in request.arch:
        sys.path.append(str(Path.cwd()))  # trusted code beside the user, as the local runner's processes find it
    check_request(request)
    stem = Path(request.model_uri.replace(":", "-")).stem or "repair"
    run = prepare(run_dir or fresh_run_dir(stem), request)
    console.print(f"run directory: {run.path}", highlight=False, soft_wrap=True)
    seconds = run_repair(request, run, runner, console)
    decision, scorecard, registration = outcome(run)
    if decision is None or scorecard is None:
        raise ModelmendError("the run left no decision", where=run.path, fix="see report.html and pipeline.log there")
    show_outcome(console, decision, scorecard, registration, seconds)
    console.print(f"report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)
    return 0 if decision.verdict == "pass" else 1


def run_repair(request: RepairRequest, run: RunDirectory, runner: str, console: Console) -> dict[str, float]:
    """Run with a checked runner; returns seconds a stage."""
    from modelmend.inprocess import write_failure_report

    started = time.monotonic()
    with StageView(console) as view:
        if runner == "local":
            from modelmend.cli.local_runner import run_pipeline

            try:
                run_pipeline(request, run, view)
            except ModelmendError as error:
                told = {"message": error.message, "where": error.where, "field": error.field, "fix": error.fix}
                write_failure_report(run, {"stage": "repair", **told})
                raise
        else:
            from modelmend.events import listening
            from modelmend.inprocess import run_in_process

            with listening(view.show):
                run_in_process(request, run)
    return {**view.seconds, "total": time.monotonic() - started}


def check_runner(runner: str) -> None:
    """Refuse a runner that there is not."""
    if runner not in ("local", "in-process"):
        raise InputError(f"unknown runner {runner!r}", field="runner", fix="use local or in-process")


def build_request(told: dict[str, Any], written: set[str], config: Path | None) -> RepairRequest:
    """Merge command line and configuration file.

    Args:
        told: Options with their defaults, by the names of ``RepairRequest``.
        written: Those that the command line spells out, which win over the file.
        config: YAML file, which wins over defaults and environment.

    Raises:
        InputError: unreadable file, unknown key (with the nearest), or a value of the wrong type.
    """
    values: dict[str, Any] = {
        **told,
        **(_read_config(config) if config else {}),
        **{k: told[k] for k in written & told.keys()},
    }
    for key in NUMBER_LISTS:
        if isinstance(values.get(key), str):
            values[key] = _numbers(values[key], key)
        elif isinstance(values.get(key), int | float):
            values[key] = (values[key],)
    for key, option in (("model_uri", "MODEL"), ("samples_uri", "--samples")):
        if not values.get(key):
            fix = f"give {option}, or {option.lower().strip('-')} in --config"
            raise InputError(
                f"no {option.lower().strip('-')} given", where=config, field=key.removesuffix("_uri"), fix=fix
            )
    for key in PATHS:
        text = str(values.get(key, ""))
        named = key == "policy_uri" and text in packaged_policies()
        if text and not named and "://" not in text and Path(text).exists():
            values[key] = str(Path(text).resolve())
    try:
        return RepairRequest(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            first["msg"], where=config, field=".".join(map(str, first["loc"])), fix="see `modelmend repair --help`"
        ) from error


def _read_config(path: Path) -> dict[str, Any]:
    import yaml

    fix = "write a YAML mapping of options, such as `samples: clean.parquet`"
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", where=path, field="config", fix="check the path") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"not YAML: {error}", where=path, field="config", fix=fix) from error
    if not isinstance(loaded, dict):
        raise InputError("the configuration must be a mapping of options", where=path, field="config", fix=fix)
    block = loaded.pop("preprocessing", None) or {}
    if not isinstance(block, dict):
        fix = "write `preprocessing:` with mean, std, input_range, kind or input_shape below it"
        raise InputError("the block must be a mapping", where=path, field="preprocessing", fix=fix)
    flat = {**loaded, **block}
    known = {*RepairRequest.model_fields}
    names = {internal: name for name, internal in CONFIG_NAMES.items()}
    shown = sorted(names.get(field, field) for field in known)
    values: dict[str, Any] = {}
    for key, value in flat.items():
        name = CONFIG_NAMES.get(str(key).replace("-", "_"), str(key).replace("-", "_"))
        if name not in known:
            near = difflib.get_close_matches(name, shown, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: preprocessing, {', '.join(shown)}"
            raise InputError(f"unknown option {key!r}", where=path, field=str(key), fix=hint)
        values[name] = value
    return values


def _numbers(text: str, field: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.replace(" ", "").strip("[]()").split(",") if part)
    except ValueError as error:
        raise InputError(f"not a list of numbers: {text!r}", field=field, fix="write such as 3,32,32") from error


def show_outcome(
    console: Console,
    decision: Decision,
    scorecard: Scorecard,
    registration: Registration | None,
    seconds: dict[str, float],
) -> None:
    """Print before and after, the checks that matter, seconds a stage, and the verdict."""
    table = Table(title="before and after, measured on the gate split", title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row("clean accuracy", percent(scorecard.accuracy_before), percent(scorecard.accuracy_after))
    if scorecard.attack_before and scorecard.attack_after and scorecard.probe_before:
        title = f"attack success, estimated, class {scorecard.probe_before.suspects[0]}"
        table.add_row(title, percent(scorecard.attack_before), percent(scorecard.attack_after))
    if scorecard.known_trigger_before and scorecard.known_trigger_after:
        table.add_row("known trigger", percent(scorecard.known_trigger_before), percent(scorecard.known_trigger_after))
    for item in scorecard.residuals:
        table.add_row(
            f"probe {item.family} ({item.role}), class {item.target}", percent(item.before), percent(item.after)
        )
    if scorecard.parameters_before and scorecard.parameters_after:
        table.add_row("parameters", f"{scorecard.parameters_before:,}", f"{scorecard.parameters_after:,}")
    table.add_row("neuron groups cut", "", f"{scorecard.groups_cut} of {scorecard.groups_total}")
    console.print(table)
    show_checks(console, decision)
    if seconds:
        stages = ", ".join(f"{TITLES.get(k, k)} {v:.1f}" for k, v in seconds.items() if v >= 0.05)
        console.print(f"seconds: {stages}", highlight=False)
    show_verdict(console, decision, registration)


def show_checks(console: Console, decision: Decision) -> None:
    """Print every check of a decision."""
    table = Table(title=f"checks of policy {decision.policy_name!r}", title_justify="left")
    for column in ("check", "value", "interval", "bound", "outcome"):
        table.add_column(column, justify="left" if column in ("check", "outcome") else "right")
    for check in decision.checks:
        colour = "red" if check.blocks else {"pass": "green", "warn": "yellow"}.get(check.outcome, "dim")
        span = "" if check.high is None else f"{_number(check.low)} .. {_number(check.high)}"
        table.add_row(check.title, _number(check.value), span, _number(check.bound), f"[{colour}]{check.outcome}")
    console.print(table)


def show_verdict(console: Console, decision: Decision, registration: Registration | None) -> None:
    """Print the verdict, why, and what the registry holds now."""
    if decision.verdict == "pass":
        console.print("[bold green]verdict: pass[/bold green]")
    else:
        console.print(f"[bold red]verdict: {decision.verdict}[/bold red]")
        for reason in decision.reasons:
            console.print(f"  - {reason}", markup=False, highlight=False)
    if registration is not None and registration.status in ("registered", "existing"):
        word = "registered" if registration.status == "registered" else "already registered"
        alias = f" with alias {registration.alias!r}" if registration.alias else ""
        console.print(f"{word}: {registration.name} version {registration.version}{alias}", highlight=False)
    else:
        console.print("nothing was registered", highlight=False)


def percent(figure: Measured) -> str:
    """A rate as percent, or a dash."""
    return "-" if figure.value is None else f"{100 * figure.value:.1f} %"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
