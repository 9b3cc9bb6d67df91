"""``modelmend demo``: an infected model from nothing to a judged, registered repair in under two minutes."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from modelmend.cli.repair import check_runner, percent, run_repair, show_checks, show_verdict
from modelmend.cli.view import TITLES
from modelmend.errors import InputError, ModelmendError
from modelmend.records import Measured
from modelmend.request import RepairRequest
from modelmend.rundir import make_folder, outcome, prepare

NAME = "digits"
SIDE = 16
IMPOSSIBLE = """\
# A policy that no repair of this size can meet: it allows no lost sample at all, with certainty.
name: demo-impossible
accuracy:
  max_drop: 0.0
  max_drop_upper: 0.001
"""


def run_demo(directory: Path | None, *, seed: int, runner: str, console: Console) -> int:
    """Run the demo; returns the exit code (0 when the repair was registered and the refusal refused)."""
    started = time.monotonic()
    check_runner(runner)
    home = _fresh(directory)
    console.print(f"demo directory: {home}", highlight=False, soft_wrap=True)
    uri = f"sqlite:///{home / 'mlflow.db'}"
    prepared = time.monotonic()
    with console.status("training an infected digit classifier (poisoned samples, BadNets patch)"):
        case = _infected(home, seed)
    console.print(f"trained an infected model: {time.monotonic() - prepared:.1f} s", highlight=False)
    prepared = time.monotonic()
    with console.status("registering it in a fresh local MLflow, as an unsuspecting team would"):
        version = _register(home, uri)
    console.print(f"registered {NAME} version {version}: {time.monotonic() - prepared:.1f} s", highlight=False)

    request = RepairRequest(
        model_uri=f"models:/{NAME}/{version}",
        samples_uri=str(home / "clean_samples.npz"),
        name=NAME,
        tracking_uri=uri,
        seed=seed,
    )
    run = prepare(home / "run", request)
    seconds = run_repair(request, run, runner, console)
    decision, scorecard, registration = outcome(run)
    if decision is None or scorecard is None:
        raise ModelmendError("the run left no decision", where=run.path, fix="see pipeline.log there")

    before, after = _true_rates(case, run.path / "repaired.pt2")
    table = Table(title="an infected digit classifier, before and after its repair", title_justify="left")
    table.add_column("")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_row("clean accuracy (held out)", f"{before['accuracy']:.1%}", f"{after['accuracy']:.1%}")
    table.add_row("true attack success rate", f"{before['asr']:.1%}", f"[bold]{after['asr']:.1%}")
    verdicts = [
        "-" if e is None else ("backdoor" if e.backdoor else "in doubt" if e.suspected else "none found")
        for e in (scorecard.probe_before, scorecard.probe_after)
    ]
    table.add_row("probe verdict", *verdicts)
    for item in scorecard.residuals:
        table.add_row(
            f"probe success, {item.family}, class {item.target} ({item.role})",
            percent(item.before),
            percent(item.after),
        )
    leak = _leakage(run.path / "privacy.json")
    table.add_row("membership AUC that the repair adds", *leak)
    table.add_row("neuron groups cut", "", f"{scorecard.groups_cut} of {scorecard.groups_total} ({_share(scorecard)})")
    table.add_row("seconds", "", f"{time.monotonic() - started:.0f}")
    console.print(table)
    console.print("The pipeline never saw the trigger; the true rates were measured after the verdict.", style="dim")
    show_verdict(console, decision, registration)
    _stages(console, seconds)
    console.print(f"report: {run.path / 'report.html'}", highlight=False, soft_wrap=True)

    refused = _refusal(run, home, uri, console)
    console.print(f"total {time.monotonic() - started:.0f} s, peak memory {_peak_gb():.1f} GB", highlight=False)
    registered = registration is not None and registration.status == "registered"
    return 0 if registered and refused else 1


def _fresh(directory: Path | None) -> Path:
    home = directory or Path(f"modelmend-demo-{time.strftime('%Y%m%d-%H%M%S')}")
    home = home.resolve()
    if home.exists() and any(home.iterdir()):
        raise InputError("the demo needs a new or empty directory", where=home, field="dir", fix="give another --dir")
    return make_folder(home, "dir")


def _infected(home: Path, seed: int) -> Any:
    import numpy as np

    from modelmend.model.export import export_module
    from modelmend.model.pt2 import write_pt2
    from modelmend.redteam.digits import train_infected_digits

    infected, split = train_infected_digits(seed, side=SIDE)
    shape = tuple(split.x_clean.shape[1:])
    write_pt2(export_module(infected.module, shape), home / "suspect.pt2", shape)
    np.savez_compressed(home / "clean_samples.npz", x=split.x_clean.numpy(), y=split.y_clean.numpy())
    return infected, split


def _register(home: Path, uri: str) -> str:
    from modelmend.registry.register import register_plain

    return str(register_plain(home / "suspect.pt2", NAME, uri))


def _true_rates(case: Any, repaired: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Clean accuracy and true ASR of suspect and repaired model on samples that no stage has seen."""
    import torch

    from modelmend.metrics import accuracy, attack_success
    from modelmend.model.pt2 import read_pt2

    infected, split = case
    x, y = split.x_test, split.y_test
    attack = infected.sealed.open(purpose="final-measurement")
    triggered, targets = attack.apply(x), attack.target(y)
    rates = []
    with torch.no_grad():
        for graph in (infected.module.eval(), read_pt2(repaired)):
            clean, attacked = graph(x).argmax(1), graph(triggered).argmax(1)
            rates.append({"accuracy": accuracy(clean, y), "asr": attack_success(attacked, y, targets)})
    return rates[0], rates[1]


def _leakage(path: Path) -> tuple[str, str]:
    from modelmend.records import PrivacyReport

    for finding in PrivacyReport.read(path).findings:
        if finding.gate == "G1" and not finding.absolute:
            return "", percent_auc(finding.measured)
    return "", "not run"


def percent_auc(figure: Measured) -> str:
    """An AUC with its interval."""
    if figure.value is None:
        return "-"
    return f"{figure.value:.2f}" + ("" if figure.high is None else f" (at most {figure.high:.2f})")


def _share(scorecard: Any) -> str:
    return f"{scorecard.groups_cut / scorecard.groups_total:.1%}" if scorecard.groups_total else "-"


def _stages(console: Console, seconds: dict[str, float]) -> None:
    table = Table(title="seconds per stage", title_justify="left", show_header=False)
    for name, value in seconds.items():
        table.add_row(TITLES.get(name, name), f"{value:.1f}")
    console.print(table)


def _refusal(run: Any, home: Path, uri: str, console: Console) -> bool:
    """Show the same evidence judged by a policy that it cannot meet."""
    from modelmend.cli.gate import judge_again

    policy = home / "impossible.yaml"
    policy.write_text(IMPOSSIBLE, encoding="utf-8")
    console.rule("the same evidence, a policy that it cannot meet")
    console.print(f"$ modelmend gate {run.path} --policy {policy} --name {NAME}", highlight=False, soft_wrap=True)
    verdict, decision, registration = judge_again(run, str(policy), NAME, uri)
    show_checks(console, decision)
    show_verdict(console, decision, registration)
    return verdict != "pass"


def _peak_gb() -> float:
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(own, children) / 2**20
