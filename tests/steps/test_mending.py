"""What pruning leaves is all that its explanation needs later."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelmend import steps
from modelmend.artifacts import SCHEMAS, read_artifact, writing
from modelmend.pruning import onp
from modelmend.pruning.environment import Candidate
from modelmend.steps.stores import save_triggers
from tests.evidence import evidence as found
from tests.pruning.test_picture import searched
from tests.steps.test_gating import Bench, make_bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = make_bench(tmp_path)
    with writing(made["evidence"], SCHEMAS["evidence"], producer="probe_backdoor") as folder:
        found(backdoor=True, success=0.9).write(folder / "evidence.json")
        save_triggers(folder / "triggers.safetensors", [])
    with writing(made["activations"], SCHEMAS["activations"], producer="extract_activations") as folder:
        save_file({"none": torch.zeros(1)}, folder / "statistics.safetensors")
    return made


@pytest.mark.parametrize("was_searched", [True, False])
def test_the_graph_of_a_search_is_kept_as_data(
    bench: Bench, was_searched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prune(classifier, *_, **__):  # type: ignore[no-untyped-def]
        candidate = Candidate((), 0.0, (), 0.0, True)
        evidence = searched() if was_searched else None
        return onp.PruneResult(classifier, [], [], candidate, [], [{"event": "graph"}], {}, 0.0, 0.0, evidence)

    monkeypatch.setattr(onp, "prune", prune)
    steps.prune_neurons(bench["suspect"], bench["samples"], bench["evidence"], bench["activations"], bench["pruned"])
    kept = read_artifact(bench["pruned"], SCHEMAS["pruned"])
    assert ("graph.json" in kept.files) is was_searched
    if was_searched:
        assert len(kept.json("graph.json")["nodes"]) == 4
