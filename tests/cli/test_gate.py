"""``modelmend gate``: the evidence of a run under another policy, wherever that lies."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.steps.test_gating import make_bench

from modelmend.cli.gate import judge_again
from modelmend.errors import ArtifactError, PolicyError
from modelmend.request import RepairRequest
from modelmend.rundir import RunDirectory, prepare


def finished(folder: Path, seed: int) -> RunDirectory:
    """A run directory with the artifacts that judging needs."""
    made = make_bench(folder)
    run = prepare(folder / "run", RepairRequest(model_uri="models:/a/1", samples_uri="s3://b/c", seed=seed))
    for name, stage in (("samples", "samples"), ("card", "scorecard"), ("privacy", "privacy")):
        (made.root / name).rename(run.stage(stage))
    return run


def test_the_decision_names_the_seed_of_the_run_and_the_policy_may_lie_behind_a_uri(tmp_path: Path) -> None:
    run = finished(tmp_path, seed=7)
    (tmp_path / "own.yaml").write_text("name: own\n")
    verdict, decision, registration = judge_again(run, f"file://{tmp_path / 'own.yaml'}", "", "")
    assert (verdict, decision.seed, decision.policy_name, registration) == ("pass", 7, "own", None)


def test_an_impossible_policy_refuses_the_same_evidence(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("accuracy: {max_drop: 0.0, max_drop_upper: 0.001}\n")
    verdict, decision, _ = judge_again(finished(tmp_path, 0), str(tmp_path / "own.yaml"), "n", "sqlite:///none.db")
    assert verdict == "refuse"
    assert any(reason.startswith("accuracy.drop") for reason in decision.reasons)


def test_a_mistyped_policy_and_a_damaged_run_are_told(tmp_path: Path) -> None:
    run = finished(tmp_path, 0)
    with pytest.raises(PolicyError, match="default"):
        judge_again(run, "defualt", "", "")
    (run.path / "run.json").write_text("{}")
    with pytest.raises(ArtifactError) as error:
        judge_again(run, "", "", "")
    assert error.value.field == "model_uri"
