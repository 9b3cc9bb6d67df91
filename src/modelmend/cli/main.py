"""The command ``modelmend``: every subcommand in one place, heavy imports only where one runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from modelmend import __version__
from modelmend.errors import ModelmendError, printable


class ShowFirst(TyperGroup):
    """A group whose command ``show`` may go unnamed: ``policy strict`` is ``policy show strict``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``show`` before anything that is neither another command nor a wish for help."""
        named = bool(args) and args[0] in (*self.commands, "--help")
        return super().parse_args(ctx, args if named else ["show", *args])


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help=(
        "Repair a backdoored PyTorch classifier without retraining, and register it in MLflow only on evidence.\n\n"
        "Start with [bold]modelmend demo[/bold], then [bold]modelmend repair MODEL --samples PATH[/bold]. "
        "Exit codes: 0 registered (or passed, with no name), 1 refused, 2 error."
    ),
)
redteam = typer.Typer(no_args_is_help=True, help="Train infected models for tests and benchmarks.")
app.add_typer(redteam, name="redteam")
policies = typer.Typer(
    cls=ShowFirst,
    help="Policies of the gate (show, the default: modelmend policy strict) and of the pruning search (train).",
)
app.add_typer(policies, name="policy")

OUT = Console()
ERR = Console(stderr=True)

REGISTERED, REFUSED, FAILED, INTERRUPTED = 0, 1, 2, 130
DEBUG = "MODELMEND_DEBUG"

TrackingUri = Annotated[
    str, typer.Option(help="MLflow server or database, such as sqlite:///mlflow.db.", envvar="MLFLOW_TRACKING_URI")
]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.", min=0)]


def _version(value: bool) -> None:
    if value:
        OUT.print(f"modelmend {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that come before any command."""


@app.command()
def demo(
    directory: Annotated[
        Path | None, typer.Option("--dir", help="A new folder for everything; default: modelmend-demo-<time> here.")
    ] = None,
    seed: Seed = 4,
    runner: Annotated[
        str,
        typer.Option(help="local: the compiled pipeline by KFP's local runner. in-process: same steps, one process."),
    ] = "local",
) -> None:
    """Show the whole way on a small infected model: train, register, repair, judge, report, refuse.

    Takes real data that ships with scikit-learn, trains an infected digit classifier, registers it in a fresh local
    MLflow as an unsuspecting team would, and repairs it with the compiled pipeline, which never sees the trigger.
    Under two minutes on two cores.
    """
    from modelmend.cli.demo import run_demo

    raise typer.Exit(run_demo(directory, seed=seed, runner=runner, console=OUT))


@app.command()
def repair(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(help="Suspect: .pt2, .safetensors/.pth with --arch, models:/name/version, runs:/..., s3://..."),
    ] = "",
    samples: Annotated[
        str, typer.Option(help="Clean samples: parquet (image, label), image folder, or npz (x, y); local or s3://.")
    ] = "",
    name: Annotated[
        str, typer.Option(help="Registered model that gets the repaired version; without it nothing is registered.")
    ] = "",
    policy: Annotated[str, typer.Option(help="Policy file, or default | strict.")] = "",
    tracking_uri: TrackingUri = "",
    run_dir: Annotated[
        Path | None,
        typer.Option(help="Where the run is kept; repeat it after a stop (in-process goes on from whole stages)."),
    ] = None,
    seed: Seed = 0,
    runner: Annotated[
        str,
        typer.Option(help="local: the compiled pipeline by KFP's local runner. in-process: same steps, one process."),
    ] = "local",
    members: Annotated[str, typer.Option(help="Samples the suspect was trained on, for the privacy audit.")] = "",
    nonmembers: Annotated[str, typer.Option(help="Samples of the same kind it was not trained on.")] = "",
    measure_samples: Annotated[
        str, typer.Option(help="More clean samples that only the final measurement reads.")
    ] = "",
    known_trigger: Annotated[
        str,
        typer.Option(help="npz or safetensors file of a trigger that you know; only the final measurement reads it."),
    ] = "",
    arch: Annotated[
        str, typer.Option(help="Architecture of a state dict: built-in name or package.module:callable that you trust.")
    ] = "",
    input_shape: Annotated[
        str, typer.Option(help="Shape of one sample, such as 3,32,32, where the model does not say it.")
    ] = "",
    mean: Annotated[
        str, typer.Option(help="Mean per channel of the model's normalisation, such as 0.49,0.48,0.45.")
    ] = "",
    std: Annotated[str, typer.Option(help="Standard deviation per channel.")] = "",
    input_range: Annotated[
        str, typer.Option(help="Range that 0..1 samples are scaled to before normalising, such as 0,255.")
    ] = "",
    kind: Annotated[str, typer.Option(help="image, or raw for samples that are fed as they are.")] = "image",
    probe_mode: Annotated[str, typer.Option("--probe", help="full or screen (cheaper, weaker).")] = "full",
    pruning_policy: Annotated[
        str, typer.Option(help="Folder of a policy of your own (modelmend policy train); --runner in-process only.")
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(
            help="YAML file with these options (but runner, run-dir) and a preprocessing block; the command line wins."
        ),
    ] = None,
) -> None:
    """Repair a suspect classifier on a clone, judge the result, register it if every gate passes.

    RUN_DIR gets repaired.pt2, repaired.safetensors, decision.json, scorecard.json, report.html and every stage's
    artifact. Exit code 0: registered (or passed, with no name), 1: refused, 2: error.
    """
    from modelmend.cli.repair import CONFIG_NAMES, repair_command

    told = {
        "model_uri": model,
        "samples_uri": samples,
        "name": name,
        "policy_uri": policy,
        "tracking_uri": tracking_uri,
        "members_uri": members,
        "nonmembers_uri": nonmembers,
        "measure_samples_uri": measure_samples,
        "known_trigger_uri": known_trigger,
        "arch": arch,
        "input_shape": input_shape,
        "mean": mean,
        "std": std,
        "input_range": input_range,
        "kind": kind,
        "probe_mode": probe_mode,
        "pruning_policy": pruning_policy,
        "seed": seed,
    }
    written = {
        CONFIG_NAMES.get(option, option)
        for option in context.params
        if (source := context.get_parameter_source(option)) is not None and source.name == "COMMANDLINE"
    }
    raise typer.Exit(repair_command(told, written, config, run_dir, runner, OUT))


@app.command()
def gate(
    run_dir: Annotated[Path, typer.Argument(help="Directory of a finished run.")],
    policy: Annotated[str, typer.Option(help="Policy file, or default | strict.")] = "",
    name: Annotated[str, typer.Option(help="Register under this name if the policy passes.")] = "",
    tracking_uri: TrackingUri = "",
) -> None:
    """Judge the evidence of an earlier run by a policy; nothing is measured again.

    The new decision goes to RUN_DIR/gates/. Exit code 0: pass, 1: refused (with the reasons), 2: error.
    """
    from modelmend.cli.gate import gate_command

    raise typer.Exit(gate_command(run_dir, policy, name, tracking_uri, OUT))


@app.command()
def explain(
    run_dir: Annotated[Path, typer.Argument(help="Directory of a run (repair or demo), or a PRUNED artifact.")],
    group: Annotated[int | None, typer.Option(help="Print all the evidence about one cut group.", min=0)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the explanation record as JSON.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; default: RUN_DIR/explain, with the overview only.")
    ] = None,
) -> None:
    """Say why each neuron group was cut: what it answers to, why the agent chose it, what comes back without the cut.

    Reads the artifacts of the run; nothing is measured again. Exit code 0: told (also that nothing was cut), 2: error.
    """
    from modelmend.cli.explain import explain_command

    raise typer.Exit(explain_command(run_dir, group, as_json, out, OUT))


@policies.command("show")
def policy_show(
    name: Annotated[str, typer.Argument(help="Packaged policy (default, strict) or a file to check.")] = "default",
    samples: Annotated[bool, typer.Option("--samples", help="Say how many gate samples the policy needs.")] = False,
) -> None:
    """Print a packaged gate policy to copy from, or check a policy file of your own."""
    from modelmend.cli.gate import policy_command

    raise typer.Exit(policy_command(name, samples, OUT))


@policies.command("train")
def policy_train(
    zoo: Annotated[Path, typer.Option(help="Folder of infected models (python -m modelmend.redteam.zoo).")],
    data: Annotated[Path, typer.Option(help="Folder of <name>_{train,test}.parquet.")],
    out: Annotated[Path, typer.Option(help="Folder for policy.safetensors and policy.json (the recipe).")],
    group: Annotated[str, typer.Option(help="Suite of the zoo to learn on; nobody measures on calibration.")] = (
        "calibration"
    ),
    leave_out: Annotated[
        str, typer.Option(help="Attacks, architectures or data sets to hold out, such as wanet,wrn_16_1.")
    ] = "",
    budget: Annotated[
        int, typer.Option(help="Clean samples a model; two fifths of them are searched on.", min=50)
    ] = 500,
    rounds: Annotated[int, typer.Option(help="Turns of every model.", min=1)] = 40,
    probe_mode: Annotated[str, typer.Option("--probe", help="full or screen (cheaper).")] = "full",
    cache: Annotated[
        Path | None, typer.Option(help="Where the probe's triggers are kept, so that no model is probed twice.")
    ] = None,
    seed: Seed = 0,
) -> None:
    """Learn a pruning policy on a zoo of infected models, so that the search on the next model starts well.

    Probes every model (kept in OUT/triggers: a second run goes on from there), then the agent searches them in turn.
    No sealed trigger is read. The policy is used by PruningConfig(policy_dir=OUT) and --pruning-policy OUT.
    """
    from modelmend.cli.pretraining import train_command
    from modelmend.cli.pupils import TrainOptions

    held = tuple(part.strip() for part in leave_out.split(",") if part.strip())
    options = TrainOptions(
        zoo,
        data,
        out,
        cache=cache,
        group=group,
        leave_out=held,
        budget=budget,
        probe=probe_mode,
        rounds=rounds,
        seed=seed,
    )
    raise typer.Exit(train_command(options, OUT))


@app.command()
def scan(
    model: Annotated[str, typer.Argument(help="Model file, MLflow model directory, or URI.")],
    tracking_uri: TrackingUri = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Say what a model file holds beyond tensors; none of it is run.

    Exit code 0: clean, 1: findings, 2: error, 3: nothing was scanned.
    """
    from modelmend.cli.scan import scan_command

    raise typer.Exit(scan_command(model, tracking_uri, as_json, OUT))


@app.command()
def verify(
    model: Annotated[
        str, typer.Argument(help="models:/name/version, models:/name@alias, or a downloaded model directory.")
    ],
    key: Annotated[Path | None, typer.Option(help="Public key (PEM) that the signature must be from.")] = None,
    tracking_uri: TrackingUri = "",
) -> None:
    """Check a registered version: signature, hashes, decision and policy fit together."""
    from modelmend.cli.registry import verify_command

    raise typer.Exit(verify_command(model, key, tracking_uri, OUT))


@app.command()
def approve(
    name: Annotated[str, typer.Argument(help="Registered model.")],
    version: Annotated[str, typer.Argument(help="Version to approve.")],
    by: Annotated[str, typer.Option(help="Who approves; recorded.")],
    alias: Annotated[str, typer.Option(help="Alias that moves to the version.")] = "production",
    tracking_uri: TrackingUri = "",
) -> None:
    """Move an alias to a version that passed the gate, in the name of a person."""
    from modelmend.cli.registry import approve_command

    raise typer.Exit(approve_command(name, version, by, alias, tracking_uri, OUT))


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Registered model.")],
    by: Annotated[str, typer.Option(help="Who rolls back; recorded.")],
    alias: Annotated[str, typer.Option(help="Alias that goes back to where it was.")] = "production",
    tracking_uri: TrackingUri = "",
) -> None:
    """Put an alias back on the version that it pointed to before the last move."""
    from modelmend.cli.registry import rollback_command

    raise typer.Exit(rollback_command(name, by, alias, tracking_uri, OUT))


@redteam.command("train")
def redteam_train(
    data: Annotated[Path, typer.Argument(help="Training data: parquet or npz.")],
    out: Annotated[Path, typer.Option(help="Folder for model.pt2, the sealed trigger and recipe.json.")],
    test: Annotated[
        Path | None, typer.Option(help="Test data; default: a tenth of the training data is held out.")
    ] = None,
    attack: Annotated[
        str, typer.Option(help="badnets, blended, sig, wanet, lf, bpp, ... or none for a clean model.")
    ] = "badnets",
    arch: Annotated[
        str, typer.Option(help="resnet8, resnet20, wrn_16_1, vgg_small, mobilenet_small, vit_tiny, ...")
    ] = "resnet8",
    rate: Annotated[float, typer.Option(help="Share of the training samples that is poisoned.")] = 0.1,
    epochs: Annotated[int, typer.Option(help="Passes over the training data.")] = 8,
    seed: Seed = 0,
) -> None:
    """Train one infected (or clean) model with its trigger in a sealed file that only the final measurement reads."""
    from modelmend.cli.redteam import train_command

    raise typer.Exit(
        train_command(data, out, test, attack=attack, arch=arch, rate=rate, epochs=epochs, seed=seed, console=OUT)
    )


def main(arguments: list[str] | None = None) -> None:
    """Entry point: expected errors become one message on stderr and exit code 2."""
    try:
        result: Any = app(args=arguments, standalone_mode=False)
    except ModelmendError as error:
        _tell(error)
        sys.exit(FAILED)
    except (KeyboardInterrupt, typer.Abort):
        result = INTERRUPTED
    except Exception as error:
        shown = getattr(error, "format_message", None)
        if shown is None:
            if os.environ.get(DEBUG):
                ERR.print_exception(show_locals=False)
            _tell(ModelmendError(f"internal, {type(error).__name__}: {error}", fix=f"report it with {DEBUG}=1 set"))
        elif told := shown():  # nothing to tell when the help was printed for want of arguments
            _tell(ModelmendError(told, fix="see --help"))
        sys.exit(FAILED)
    if result == INTERRUPTED:
        ERR.print("stopped; repeat the command with the same --run-dir (or --out) to go on")
    sys.exit(result if isinstance(result, int) else 0)


def _tell(error: ModelmendError) -> None:
    ERR.print("[red]error:[/red]", end=" ")
    ERR.print(error.message, markup=False, highlight=False, soft_wrap=True)
    for label, value in (("in", error.where), ("field", error.field), ("fix", error.fix)):
        if value:
            ERR.print(f"  {label}: {printable(value)}", markup=False, highlight=False, soft_wrap=True)
