"""A run directory is taken up again only for the same request, and shows only whole artifacts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from modelmend.artifacts import write_json, writing
from modelmend.errors import InputError
from modelmend.request import RepairRequest, check_request
from modelmend.rundir import RunDirectory, adopt, open_run, prepare, publish

REQUEST = RepairRequest(model_uri="models:/a/1", samples_uri="s3://b/c", seed=3)


def test_prepare_takes_the_same_request_up_again(tmp_path: Path) -> None:
    first = prepare(tmp_path / "run", REQUEST)
    assert prepare(tmp_path / "run", REQUEST).path == first.path


def test_prepare_refuses_another_request_and_names_the_field(tmp_path: Path) -> None:
    _decide(prepare(tmp_path / "run", REQUEST), "decision", "pass", 1)
    with pytest.raises(InputError) as error:
        prepare(tmp_path / "run", REQUEST.model_copy(update={"seed": 4}))
    assert error.value.field == "seed"


def test_a_run_that_left_nothing_may_be_repeated_with_other_options(tmp_path: Path) -> None:
    prepare(tmp_path / "run", REQUEST)
    other = REQUEST.model_copy(update={"seed": 4})
    prepare(tmp_path / "run", other)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["seed"] == 4


def _decide(run: RunDirectory, stage: str, verdict: str, looks: int) -> None:
    with writing(run.stage(stage), "modelmend.decision/1", producer="gate_repair") as folder:
        write_json(folder / "decision.json", {"verdict": verdict, "looks": looks})


def test_the_verdict_of_an_earlier_run_is_not_published_again(tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", REQUEST)
    _decide(run, "decision", "fallback", 1)
    _decide(run, "decision_2", "pass", 2)
    publish(run)
    run = prepare(tmp_path / "run", REQUEST)
    assert not (run.path / "decision.json").exists()
    _decide(run, "decision", "refuse", 1)
    publish(run)
    assert json.loads((run.path / "decision.json").read_text())["verdict"] == "refuse"


def test_a_second_look_counts_once_it_was_judged(tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", REQUEST)
    _decide(run, "edited_2", "-", 2)
    assert run.final("edited") == run.stage("edited")
    _decide(run, "decision_2", "pass", 2)
    assert run.final("edited") == run.stage("edited_2")


def test_prepare_says_when_it_may_not_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(InputError, match="cannot write"):
        prepare(tmp_path / "file" / "run", REQUEST)


def test_open_run_refuses_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run directory"):
        open_run(tmp_path)


def test_adopt_tells_the_second_look_by_content(tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", REQUEST)
    for task, looks in (("gate-repair", 1), ("gate-repair-2", 2)):
        with writing(tmp_path / "kfp" / task / "decision", "modelmend.decision/1", producer="gate_repair") as folder:
            write_json(folder / "decision.json", {"looks": looks})
    adopt(run, tmp_path / "kfp")
    assert json.loads((run.stage("decision") / "decision.json").read_text())["looks"] == 1
    assert run.final("decision") == run.stage("decision_2")


def test_publish_ignores_a_half_written_stage(tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", REQUEST)
    half = run.stage("decision")
    half.mkdir()
    (half / "decision.json").write_text("{}")
    publish(run)
    assert not (run.path / "decision.json").exists()


def test_missing_local_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        check_request(RepairRequest(model_uri=str(tmp_path / "no.pt2"), samples_uri="s3://b/c"))
    assert error.value.field == "model"


def test_members_need_nonmembers() -> None:
    with pytest.raises(InputError, match="go together"):
        check_request(REQUEST.model_copy(update={"members_uri": "s3://m/m"}))


def test_configuration_hash_changes_with_what_shapes_the_result() -> None:
    assert REQUEST.configuration != REQUEST.model_copy(update={"mean": (0.5,)}).configuration
    assert REQUEST.configuration == REQUEST.model_copy(update={"name": "other", "tracking_uri": "x"}).configuration


def test_a_directory_that_another_process_works_in_is_refused(tmp_path: Path) -> None:
    run = prepare(tmp_path / "run", REQUEST)
    code = (
        "import sys; from modelmend.rundir import prepare; from modelmend.request import RepairRequest\n"
        f"prepare({str(run.path)!r}, RepairRequest.model_validate_json(sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, REQUEST.model_dump_json()], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and "another process" in done.stderr
