"""A verdict and a registration rest on artifacts that belong together, and on a decision that follows from them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

pytest.importorskip("mlflow")

from modelmend import steps
from modelmend.artifacts import SCHEMAS, Artifact, read_artifact, write_json, writing
from modelmend.errors import GateError
from modelmend.model.export import export_module
from modelmend.model.hashing import content_hash
from modelmend.model.pt2 import read_pt2, write_pt2
from modelmend.records import Decision, Preprocessing, Registration, SuspectInfo
from modelmend.samples.data import make_samples
from modelmend.steps.stores import save_samples
from tests.evidence import good_card, good_privacy
from tests.registry.conftest import SHAPE, small_net


@dataclass
class Bench:
    """Small artifacts of one run, to be mixed up."""

    root: Path
    content: str

    def __getitem__(self, name: str) -> str:
        return str(self.root / name)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    def open(self, name: str, role: str) -> Artifact:
        return read_artifact(self.root / name, SCHEMAS[role])

    def suspect(self, name: str, **told: object) -> None:
        info = SuspectInfo(
            source="file", format="pt2", content_hash=self.content, file_hash="f", input_shape=SHAPE, num_classes=4,
            dtype="float32", parameters=1, preprocessing=Preprocessing(**told),
        )  # fmt: skip
        with writing(self.root / name, SCHEMAS["suspect"], producer="import_model") as folder:
            shutil.copy(self.root / "model.pt2", folder / "model.pt2")
            info.write(folder / "suspect.json")

    def samples(self, name: str, seed: int) -> None:
        x = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(seed))
        bank = make_samples(x, torch.arange(40) % 4, source=name)
        with writing(self.root / name, SCHEMAS["samples"], producer="validate_samples") as folder:
            part = torch.arange(40, dtype=torch.int8) % 4
            save_samples(folder, bank, part, {"hash": bank.hash(), "measured_apart": 0})

    def evidence(self, *, suspect: str = "suspect", samples: str = "samples", at: str = "", **card: object) -> None:
        inputs = {"suspect": self.open(suspect, "suspect"), "samples": self.open(samples, "samples")}
        with writing(self.root / f"edited{at}", SCHEMAS["edited"], producer="edit_weights", inputs=inputs) as folder:
            shutil.copy(self.root / "model.pt2", folder / "model.pt2")
            write_json(folder / "edit.json", {"content_hash": self.content})
            (folder / "delta.safetensors").write_bytes(b"")
        inputs["edited"] = self.open(f"edited{at}", "edited")
        with writing(self.root / f"card{at}", SCHEMAS["scorecard"], producer="measure_repair", inputs=inputs) as folder:
            good_card(suspect_hash=self.content, repaired_hash=self.content, **card).write(folder / "scorecard.json")
        with writing(self.root / f"privacy{at}", SCHEMAS["privacy"], producer="audit", inputs=inputs) as folder:
            good_privacy().write(folder / "privacy.json")

    def gate(self, decision: str = "decision", samples: str = "samples", at: str = "") -> str:
        return steps.gate_repair(self[samples], self[f"card{at}"], self[f"privacy{at}"], self[decision])

    def register(self, decision: str = "decision", suspect: str = "suspect", privacy: str = "", at: str = "") -> str:
        return steps.register_model(
            self[suspect], self["samples"], self[f"edited{at}"], self[f"card{at}"], self[privacy or f"privacy{at}"],
            self[decision], self["registration"], name="signs", tracking_uri=self.uri,
        )  # fmt: skip


def make_bench(folder: Path) -> Bench:
    """Artifacts of a good repair."""
    write_pt2(export_module(small_net(), SHAPE), folder / "model.pt2", SHAPE)
    made = Bench(folder, content_hash(read_pt2(folder / "model.pt2")))
    made.suspect("suspect")
    made.samples("samples", 0)
    made.evidence()
    return made


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return make_bench(tmp_path)


def test_artifacts_of_one_run_pass_and_are_registered_once(bench: Bench) -> None:
    assert bench.gate() == "pass"
    assert [bench.register(), bench.register()] == ["registered", "existing"]


def test_evidence_about_other_samples_is_not_judged(bench: Bench) -> None:
    bench.samples("others", 1)
    with pytest.raises(GateError) as error:
        bench.gate(samples="others")
    assert error.value.field == "samples"


def test_a_pass_that_does_not_follow_from_the_evidence_registers_nothing(bench: Bench) -> None:
    bench.gate()
    lost = good_card().accuracy_drop.model_copy(update={"value": None})
    bench.evidence(at="_bad", accuracy_drop=lost)
    assert bench.gate("refused", at="_bad") == "refuse"
    said = Decision.read(bench.root / "decision" / "decision.json")
    inputs = {
        "samples": bench.open("samples", "samples"),
        "scorecard": bench.open("card_bad", "scorecard"),
        "privacy": bench.open("privacy_bad", "privacy"),
    }
    with writing(bench["forged"], SCHEMAS["decision"], producer="gate_repair", inputs=inputs) as folder:
        said.write(folder / "decision.json")
    with pytest.raises(GateError, match="does not follow"):
        bench.register("forged", at="_bad")
    assert not (bench.root / "mlflow.db").exists()


def test_an_audit_of_another_run_is_not_logged_as_evidence(bench: Bench) -> None:
    bench.gate()
    bench.samples("others", 1)
    bench.evidence(at="_other", samples="others")
    with pytest.raises(GateError):
        bench.register(privacy="privacy_other")


def test_another_preprocessing_is_another_registration(bench: Bench) -> None:
    def key() -> str | None:
        return Registration.read(bench.root / "registration" / "registration.json").registration_key

    bench.gate()
    bench.register()
    first = key()
    bench.suspect("rescaled", mean=(0.5,))
    bench.evidence(suspect="rescaled", at="_rescaled")
    bench.gate("decision_rescaled", at="_rescaled")
    assert bench.register("decision_rescaled", "rescaled", at="_rescaled") == "registered"
    assert key() != first


def test_a_report_that_the_server_does_not_take_is_a_warning(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.gate()
    bench.register()
    report = bench.root / "report.html"
    steps.write_report(
        str(report), {"registration": bench["registration"]}, tracking_uri="sqlite:////proc/nowhere/mlflow.db"
    )
    assert report.is_file()
    assert "not in the registry" in caplog.text


def test_the_report_of_a_failure_is_not_evidence_of_a_version(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.gate()
    bench.register()
    attached: list[object] = []
    monkeypatch.setattr("modelmend.registry.register.attach", lambda *a, **k: attached.append(a))
    artifacts = {"registration": bench["registration"]}
    steps.write_report(str(bench.root / "r.html"), artifacts, error={"stage": "probe", "message": "no"})
    assert attached == []
    steps.write_report(str(bench.root / "r.html"), artifacts, tracking_uri=bench.uri)
    assert len(attached) == 1
