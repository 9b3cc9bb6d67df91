import json
from pathlib import Path

import mlflow
import pytest
import torch

from modelmend.artifacts import sha256_file
from modelmend.errors import RegistryError
from modelmend.gate.policy import Policy
from modelmend.model.hashing import content_hash
from modelmend.model.pt2 import read_pt2
from modelmend.registry import register as registering
from modelmend.registry.connect import download
from modelmend.registry.register import attach
from tests.evidence import digest, good_card
from tests.registry.conftest import NAME, SHAPE, Case, decide, small_net


def test_a_pass_becomes_a_version_with_alias_tags_and_evidence(case: Case):
    result = case.register()
    assert (result.status, result.version, result.alias) == ("registered", "1", "candidate")
    assert case.alias() == "1"
    tags = case.tags()
    assert tags["modelmend.status"] == "registered"
    assert tags["modelmend.registration_key"] == result.registration_key
    assert tags["modelmend.decision_hash"] == result.decision_hash
    assert tags["modelmend.content_hash"] == case.decision.repaired_hash
    assert tags["modelmend.parent"] == "models:/signs-production/7"
    assert "backdoor.known_trigger" in json.loads(tags["modelmend.not_run"])
    run = case.mlflow.get_run(case.versions()[0].run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["modelmend.policy_hash"] == case.policy.hash()
    assert run.data.metrics["modelmend.accuracy_drop"] == pytest.approx(0.005)
    names = {item.path for item in case.mlflow.list_artifacts(run.info.run_id, "modelmend")}
    assert names == {"modelmend/decision.json", "modelmend/scorecard.json"}


def test_what_is_stored_is_byte_for_byte_what_was_judged_and_mlflow_loads_it(case: Case, tmp_path, monkeypatch):
    case.register()
    stored = download(case.versions()[0].source, tmp_path / "stored", case.uri)
    assert sha256_file(stored / "data" / "model.pt2") == sha256_file(case.model_path)
    x = torch.randn(5, *SHAPE)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    loaded = mlflow.pytorch.load_model(str(stored))
    with torch.no_grad():
        assert torch.equal(loaded(x), small_net()(x))
    predicted = mlflow.pyfunc.load_model(str(stored)).predict(x.numpy())
    assert torch.equal(torch.from_numpy(predicted), small_net()(x).detach())


def test_a_second_call_finds_the_first(case: Case):
    first, second = case.register(), case.register()
    assert second.status == "existing"
    assert second.version == first.version
    assert len(case.versions()) == 1


def test_an_existing_answer_leaves_later_alias_moves_alone(case: Case):
    case.register()
    case.register(key_inputs={**case.key_inputs, "seed": 1})
    assert case.alias() == "2"
    assert case.register().status == "existing"
    assert case.alias() == "2"


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"configuration": digest("e")}, {"extra": "text"}], ids=["seed", "configuration", "more"]
)
def test_another_input_is_another_registration(case: Case, change):
    first = case.register()
    assert case.register(key_inputs={**case.key_inputs, **change}).registration_key != first.registration_key
    assert [str(item.version) for item in case.versions()] == ["1", "2"]


def test_the_target_name_is_part_of_the_key(case: Case):
    assert case.register().registration_key != case.register(name="other-model").registration_key


@pytest.mark.parametrize("verdict", ["refuse", "fallback"])
def test_no_pass_no_registration(case: Case, verdict):
    decision = case.decision.model_copy(update={"verdict": verdict, "reasons": ("accuracy.drop: too much",)})
    result = case.register(decision=decision)
    assert (result.status, result.version) == ("refused", None)
    assert "accuracy.drop" in result.reason
    assert case.mlflow.search_registered_models() == []


def test_without_a_name_nothing_is_registered_and_no_server_is_asked(case: Case):
    assert case.register(name=None, tracking_uri="http://127.0.0.1:9").status == "unnamed"


def test_another_file_than_the_judged_one_is_refused(case: Case, other_file):
    with pytest.raises(RegistryError, match="repaired_hash"):
        case.register(model_path=other_file)
    assert case.mlflow.search_registered_models() == []


@pytest.mark.parametrize("field", ["suspect_hash", "samples_hash", "policy_hash"])
def test_a_decision_about_something_else_is_refused(case: Case, field):
    with pytest.raises(RegistryError, match=field.removesuffix("_hash")):
        case.register(decision=case.decision.model_copy(update={field: digest("9")}))


def test_another_policy_than_the_one_that_judged_is_refused(case: Case):
    with pytest.raises(RegistryError, match="policy_hash"):
        case.register(policy=Policy(fallback="none"))


def test_a_suspect_that_was_not_judged_is_refused(case: Case):
    with pytest.raises(RegistryError, match="suspect_hash"):
        case.register(suspect=case.suspect.model_copy(update={"content_hash": digest("9")}))


def test_a_pass_with_a_blocking_check_is_refused(case: Case):
    blocked = case.decision.checks[0].model_copy(update={"blocks": True, "outcome": "fail"})
    for checks in ((blocked, *case.decision.checks[1:]), ()):
        with pytest.raises(RegistryError, match="checks"):
            case.register(decision=case.decision.model_copy(update={"checks": checks}))


def test_a_missing_file_is_refused(case: Case, tmp_path):
    with pytest.raises(RegistryError, match="no model file"):
        case.register(model_path=tmp_path / "none.pt2")


def tamper(case: Case, monkeypatch, spoil):
    real = registering.download

    def spoiled(source, folder, uri):
        stored = real(source, folder, uri)
        spoil(stored)
        return stored

    monkeypatch.setattr(registering, "download", spoiled)
    with pytest.raises(RegistryError):
        case.register()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: (stored / "data" / "model.pt2").write_bytes(b"PK"),
        lambda stored: (stored / "data" / "model.pth").write_bytes(b"loaded first by MLflow"),
        lambda stored: (stored / "MLmodel").unlink(),
    ],
    ids=["model replaced", "file added", "file removed"],
)
def test_a_stored_copy_that_differs_is_rejected_without_alias(case: Case, monkeypatch, spoil):
    tamper(case, monkeypatch, spoil)
    assert case.tags()["modelmend.status"] == "rejected"
    assert case.tags()["modelmend.reason"]
    assert case.alias() is None


def test_a_stored_model_is_judged_by_its_content_too(case: Case, monkeypatch, other_file):
    monkeypatch.setattr(registering, "sha256_json", lambda value: "same")
    tamper(case, monkeypatch, lambda stored: (stored / "data" / "model.pt2").write_bytes(other_file.read_bytes()))
    assert case.tags()["modelmend.status"] == "rejected"


def test_after_a_rejection_a_sound_store_gives_a_new_version(case: Case, monkeypatch):
    with monkeypatch.context() as patch:
        tamper(case, patch, lambda stored: (stored / "MLmodel").unlink())
    assert case.register().version == "2"
    assert case.alias() == "2"


def test_an_unfinished_version_of_another_result_is_superseded(case: Case, monkeypatch, other_file):
    monkeypatch.setattr(registering, "_compare", lambda *args: 1 / 0)
    with pytest.raises(RegistryError):
        case.register()
    monkeypatch.undo()
    other = decide(case.policy, other_file)
    good_card(repaired_hash=other.repaired_hash).write(case.artifacts["scorecard.json"])
    result = case.register(decision=other, model_path=other_file, tracking_uri=case.uri)
    assert (result.status, result.version) == ("registered", "2")
    assert case.tags("1")["modelmend.status"] == "superseded"


def test_two_at_once_leave_one_live_version(case: Case, monkeypatch):
    real, met = registering._build, []

    def slow(request, folder):
        real(request, folder)
        if not met:
            met.append(True)
            case.register()  # another process was faster between look-up and creation

    monkeypatch.setattr(registering, "_build", slow)
    result = case.register()
    assert result.version == "1"
    assert [item.tags["modelmend.status"] for item in case.versions()] == ["registered", "superseded"]
    assert case.alias() == "1"


def test_the_run_of_an_orchestrator_is_used_and_left_open(case: Case, monkeypatch, tmp_path):
    run = case.mlflow.create_run(case.mlflow.create_experiment("kfp", artifact_location=(tmp_path / "kfp").as_uri()))
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    case.register()
    case.register(key_inputs={**case.key_inputs, "seed": 1})
    assert {item.run_id for item in case.versions()} == {run.info.run_id}
    assert case.mlflow.get_run(run.info.run_id).info.status == "RUNNING"


def test_files_can_be_attached_afterwards(case: Case, tmp_path):
    result = case.register()
    (tmp_path / "report.html").write_text("<html>")
    attach(result, {"report.html": tmp_path / "report.html"}, tracking_uri=case.uri)
    names = {item.path for item in case.mlflow.list_artifacts(case.versions()[0].run_id, "modelmend")}
    assert "modelmend/report.html" in names


def test_a_later_file_never_replaces_what_is_logged(case: Case, tmp_path):
    result = case.register()
    for folder, text in (("first", "the evidence"), ("second", "another run")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "report.html").write_text(text)
        attach(result, {"report.html": tmp_path / folder / "report.html"}, tracking_uri=case.uri)
    run_id = case.versions()[0].run_id
    stored = case.mlflow.download_artifacts(run_id, "modelmend/report.html", str(tmp_path))
    assert Path(stored).read_text() == "the evidence"


@pytest.mark.parametrize("name", ["a/b", "a:b", " "])
def test_a_name_that_mlflow_refuses_is_a_registry_error(case: Case, name):
    with pytest.raises(RegistryError):
        case.register(name=name)


def test_artifacts_lie_beside_the_database_and_not_in_the_current_directory(case: Case, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    case.register()
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "mlflow-artifacts").is_dir()


def test_the_stored_model_needs_no_code_of_ours(case: Case, tmp_path):
    case.register()
    stored = download(case.versions()[0].source, tmp_path / "stored", case.uri)
    text = (stored / "requirements.txt").read_text() + (stored / "MLmodel").read_text()
    assert "modelmend==" not in text
    assert content_hash(read_pt2(stored / "data" / "model.pt2")) == case.decision.repaired_hash
    assert NAME in [item.name for item in case.mlflow.search_registered_models()]
