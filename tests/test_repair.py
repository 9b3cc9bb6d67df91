"""The whole path on the digits: an infected model is repaired and registered, killed runs go on, bad input is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

import modelmend
from modelmend.errors import ModelmendError, SamplesError
from modelmend.metrics import accuracy, attack_success
from modelmend.model.export import export_module
from modelmend.model.hashing import content_hash
from modelmend.model.pt2 import read_pt2, write_pt2
from modelmend.redteam.digits import train_infected_digits
from modelmend.redteam.train import Infected


@dataclass(frozen=True)
class Case:
    """An infected digit model on disk with the defender's samples."""

    model: Path
    samples: Path
    trigger: Path
    infected: Infected
    split: object


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("digits")
    infected, split = train_infected_digits(0, side=16)
    write_pt2(export_module(infected.module, (1, 16, 16)), folder / "suspect.pt2", (1, 16, 16))
    np.savez(folder / "clean.npz", x=split.x_clean.numpy(), y=split.y_clean.numpy())
    assert infected.sealed is not None
    attack = infected.sealed.open(purpose="final-measurement")
    dark, bright = (attack.apply(torch.full((1, 1, 16, 16), shade))[0].numpy() for shade in (0.0, 1.0))
    mask = 1 - (bright - dark)
    np.savez(folder / "trigger.npz", target=attack.target_class, mask=mask, pattern=dark / np.maximum(mask, 1e-6))
    return Case(folder / "suspect.pt2", folder / "clean.npz", folder / "trigger.npz", infected, split)


@pytest.fixture(scope="session")
def repaired(case: Case, tmp_path_factory: pytest.TempPathFactory) -> modelmend.RepairResult:
    folder = tmp_path_factory.mktemp("repair")
    before = case.model.read_bytes()
    result = modelmend.repair(
        case.model,
        case.samples,
        name="digits",
        tracking_uri=f"sqlite:///{folder}/mlflow.db",
        run_dir=folder / "run",
        known_trigger=case.trigger,
    )
    assert case.model.read_bytes() == before, "the suspect must never change"
    return result


def rates(case: Case, graph: torch.nn.Module) -> tuple[float, float]:
    """True clean accuracy and ASR, on samples that no stage has seen."""
    assert case.infected.sealed is not None
    attack = case.infected.sealed.open(purpose="final-measurement")
    x, y = case.split.x_test, case.split.y_test  # type: ignore[attr-defined]
    with torch.no_grad():
        clean, attacked = graph(x).argmax(1), graph(attack.apply(x)).argmax(1)
    return accuracy(clean, y), attack_success(attacked, y, attack.target(y))


@pytest.mark.slow
def test_the_backdoor_is_gone_and_the_accuracy_stays(case: Case, repaired: modelmend.RepairResult) -> None:
    acc_before, asr_before = rates(case, case.infected.module.eval())
    acc_after, asr_after = rates(case, repaired.model())
    assert asr_before >= 0.9
    assert asr_after <= 0.1
    assert acc_after >= acc_before - 0.03


@pytest.mark.slow
def test_the_known_trigger_is_measured_and_judged(case: Case, repaired: modelmend.RepairResult) -> None:
    before, after = repaired.scorecard.known_trigger_before, repaired.scorecard.known_trigger_after
    assert before is not None and before.value is not None and before.value >= 0.9
    assert after is not None and after.value is not None and after.value <= 0.1
    found = next(check for check in repaired.decision.checks if check.name == "backdoor.known_trigger")
    assert found.outcome == "pass"
    manifest = json.loads((repaired.run_dir / "artifacts" / "scorecard" / "manifest.json").read_text())
    assert manifest["params"]["known_trigger"]
    assert "Known trigger" in (repaired.run_dir / "report.html").read_text(encoding="utf-8")


def test_a_known_trigger_of_another_shape_stops_the_run_early(case: Case, tmp_path: Path) -> None:
    np.savez(tmp_path / "trigger.npz", target=1, delta=np.ones((3, 16, 16), np.float32))
    with pytest.raises(ModelmendError, match="shape"):
        modelmend.repair(case.model, case.samples, known_trigger=tmp_path / "trigger.npz", run_dir=tmp_path / "run")
    assert not (tmp_path / "run" / "artifacts" / "evidence").exists()


@pytest.mark.slow
def test_every_gate_passed_and_version_was_registered(repaired: modelmend.RepairResult) -> None:
    assert repaired.verdict == "pass", repaired.decision.reasons
    assert repaired.registration.status == "registered"
    assert not any(check.blocks for check in repaired.decision.checks)


@pytest.mark.slow
def test_run_directory_holds_what_other_tools_read(case: Case, repaired: modelmend.RepairResult) -> None:
    from safetensors.torch import load_file

    run = repaired.run_dir
    for name in ("repaired.pt2", "repaired.safetensors", "decision.json", "scorecard.json", "report.html"):
        assert (run / name).is_file(), name
    decision = json.loads((run / "decision.json").read_text())
    assert decision["repaired_hash"] == content_hash(read_pt2(run / "repaired.pt2"))
    state, original = load_file(run / "repaired.safetensors"), case.infected.module.state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == {k: tuple(v.shape) for k, v in original.items()}
    assert json.loads((run / "scorecard.json").read_text())["reactivation"]["method"]
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "<html" in report and "after waking" in report


@pytest.mark.slow
def test_the_delta_undoes_the_repair_exactly(case: Case, repaired: modelmend.RepairResult) -> None:
    from modelmend.rundir import open_run

    run = open_run(repaired.run_dir)
    assert (run.final("edited") / "delta.safetensors").is_file()


DRIVER = """
import sys, modelmend
result = modelmend.repair(sys.argv[1], sys.argv[2], name="digits", tracking_uri=sys.argv[3], run_dir=sys.argv[4])
print(result.verdict, result.registration.status)
"""


def _start(case: Case, folder: Path) -> subprocess.Popen[str]:
    uri = f"sqlite:///{folder}/mlflow.db"
    environment = {**os.environ, "MODELMEND_EVENTS": str(folder / "events"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(case.model), str(case.samples), uri, str(folder / "run")],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def _kill_when(process: subprocess.Popen[str], folder: Path, stage: str, after: float) -> None:
    """Kill -9 some time after a stage has started."""
    events = folder / "events"
    while process.poll() is None:
        if events.exists() and f'"start", "stage": "{stage}"' in events.read_text():
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    process.wait()
    events.unlink(missing_ok=True)


@pytest.mark.slow
def test_a_killed_run_goes_on_and_registers_once(case: Case, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    for stage, after in (("prune_neurons", 0.5), ("measure_repair", 0.2), ("register_model", 1.5)):
        _kill_when(_start(case, tmp_path), tmp_path, stage, after)
    last = _start(case, tmp_path)
    told = last.communicate()[0]
    assert last.returncode == 0, told
    assert told.split()[0] == "pass"
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    versions = client.search_model_versions("name='digits'")
    assert len(versions) == 1
    assert client.get_model_version_by_alias("digits", "candidate").version == versions[0].version
    assert not list((tmp_path / "run" / "artifacts").glob("*.tmp-*/manifest.json"))


def _refused(case: Case, tmp_path: Path, x: np.ndarray, y: np.ndarray) -> ModelmendError:
    np.savez(tmp_path / "bad.npz", x=x, y=y)
    with pytest.raises(ModelmendError) as error:
        modelmend.repair(case.model, tmp_path / "bad.npz", run_dir=tmp_path / "run")
    report = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert error.value.message.split("\n")[0][:20] in report, "a failed run leaves a report, too"
    return error.value


def test_labels_outside_the_classes_are_an_error(case: Case, tmp_path: Path) -> None:
    x, y = np.array(case.split.x_clean), np.array(case.split.y_clean)  # type: ignore[attr-defined]
    y[5] = 99
    assert isinstance(_refused(case, tmp_path, x, y), SamplesError)


def test_all_samples_of_one_class_are_an_error(case: Case, tmp_path: Path) -> None:
    x, y = np.array(case.split.x_clean), np.array(case.split.y_clean)  # type: ignore[attr-defined]
    assert isinstance(_refused(case, tmp_path, x[y == 3], y[y == 3]), SamplesError)


def test_nan_pixels_are_an_error(case: Case, tmp_path: Path) -> None:
    x, y = np.array(case.split.x_clean), np.array(case.split.y_clean)  # type: ignore[attr-defined]
    x[7, 0, 0, 0] = np.nan
    assert "7" in str(_refused(case, tmp_path, x, y))


def test_a_wrong_image_size_is_an_error(case: Case, tmp_path: Path) -> None:
    y = np.array(case.split.y_clean)  # type: ignore[attr-defined]
    _refused(case, tmp_path, np.zeros((len(y), 1, 9, 9), np.float32), y)


def test_a_wrong_preprocessing_is_noticed(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ModelmendError, match="chance"):
        modelmend.repair(case.model, case.samples, input_range=(255, 256), run_dir=tmp_path / "run")


def test_a_file_that_is_no_model_is_an_error(case: Case, tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_text("hello")
    with pytest.raises(ModelmendError):
        modelmend.repair(tmp_path / "model.pt2", case.samples, run_dir=tmp_path / "run")
