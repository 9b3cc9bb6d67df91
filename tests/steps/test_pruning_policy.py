"""A pruning policy of one's own, from the request to the record of the pruned model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelmend import inprocess, steps
from modelmend.artifacts import SCHEMAS, read_artifact, sha256_file, writing
from modelmend.errors import InputError
from modelmend.pruning import onp
from modelmend.pruning.environment import Candidate
from modelmend.pruning.pretrain import save_policy
from modelmend.request import RepairRequest
from modelmend.rundir import prepare
from modelmend.steps.stores import save_triggers
from tests.evidence import evidence as found
from tests.steps.test_gating import make_bench

REQUEST = RepairRequest(model_uri="models:/a/1", samples_uri="s3://b/c")


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A folder with an untrained policy."""
    save_policy(tmp_path / "policy", onp.new_policy(onp.PolicyConfig(), 0), {})
    return tmp_path / "policy"


@pytest.mark.parametrize("own", [True, False])
def test_the_step_searches_with_it_and_records_its_hash(
    own: bool, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, used = make_bench(tmp_path), []
    with writing(bench["evidence"], SCHEMAS["evidence"], producer="probe_backdoor") as folder:
        found(backdoor=True, success=0.9).write(folder / "evidence.json")
        save_triggers(folder / "triggers.safetensors", [])
    with writing(bench["activations"], SCHEMAS["activations"], producer="extract_activations") as folder:
        save_file({"none": torch.zeros(1)}, folder / "statistics.safetensors")

    def prune(classifier, *_, config, **__):  # type: ignore[no-untyped-def]
        used.append(config.policy_dir)
        return onp.PruneResult(classifier, [], [], Candidate((), 0.0, (), 0.0, True), [], [], {}, 0.0, 0.0, None)

    monkeypatch.setattr(onp, "prune", prune)
    paths = (bench[name] for name in ("suspect", "samples", "evidence", "activations", "pruned"))
    steps.prune_neurons(*paths, policy_dir=str(policy) if own else "")
    params = read_artifact(bench["pruned"], SCHEMAS["pruned"]).params
    assert used == [policy if own else None]
    assert params.get("policy") == (sha256_file(policy / "policy.safetensors") if own else None)
    assert "policy_dir" not in params["config"]


def test_the_in_process_runner_hands_it_to_the_step(
    policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reached(Exception):
        """Stops the run where it matters."""

    def reached(*_: object, policy_dir: str, **__: object) -> None:
        raise Reached(policy_dir)

    for name in ("import_model", "validate_samples", "probe_backdoor", "extract_activations"):
        monkeypatch.setattr(steps, name, lambda *_, **__: None)
    monkeypatch.setattr(steps, "prune_neurons", reached)
    request = REQUEST.model_copy(update={"pruning_policy": str(policy)})
    with pytest.raises(Reached, match=str(policy)):
        inprocess.run_in_process(request, prepare(tmp_path / "run", request))


def test_its_weights_are_part_of_the_configuration_and_the_pipeline_never_sees_it(policy: Path, tmp_path: Path) -> None:
    request = REQUEST.model_copy(update={"pruning_policy": str(policy)})
    moved = policy.rename(tmp_path / "moved")
    elsewhere = REQUEST.model_copy(update={"pruning_policy": str(moved)})
    with pytest.raises(InputError, match="pruning policy"):
        assert request.configuration
    first = elsewhere.configuration
    assert first != REQUEST.configuration
    save_policy(moved, onp.new_policy(onp.PolicyConfig(), 1), {})
    assert elsewhere.configuration != first
    assert "pruning_policy" not in elsewhere.arguments()
