"""What pruning leaves is all that its explanation needs later."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelmend import steps
from modelmend.artifacts import SCHEMAS, read_artifact, write_json, writing
from modelmend.model.classifier import Classifier
from modelmend.model.hashing import content_hash
from modelmend.pruning import onp
from modelmend.pruning.environment import Candidate
from modelmend.steps.stores import open_suspect, save_classifier, save_triggers
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


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize(("step", "module"), [("edit_weights", "edit"), ("fine_tune", "finetune")])
def test_a_change_of_weights_is_told_what_to_keep_and_how_likely_a_backdoor_is(
    step: str, module: str, calibrated: bool, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, object] = {}

    class Reached(Exception):
        """The change was asked for."""

    def change(*_: object, **settings: object) -> None:
        told.update(settings)
        raise Reached

    evidence = found(backdoor=True, success=0.9).model_copy(update={"calibrated": calibrated})
    shutil.rmtree(bench["evidence"])
    with writing(bench["evidence"], SCHEMAS["evidence"], producer="probe_backdoor") as folder:
        evidence.write(folder / "evidence.json")
        save_triggers(folder / "triggers.safetensors", [])
    source = open_suspect(bench["suspect"])
    begun = source.classifier.clone()
    next(begun.graph.parameters()).data.mul_(0.5)
    for role, record in (("pruned", "pruning.json"), ("edited", "edit.json")):
        shutil.rmtree(bench[role], ignore_errors=True)
        with writing(bench[role], SCHEMAS[role], producer="prune_neurons") as folder:
            content = save_classifier(begun, folder, source.info)
            write_json(folder / record, {"cut": [], "content_hash": content})
    monkeypatch.setattr(
        importlib.import_module(f"modelmend.editing.{module}"), "edit" if module == "edit" else step, change
    )
    given = [bench[name] for name in ("suspect", "samples", "evidence", "pruned" if module == "edit" else "edited")]
    with pytest.raises(Reached):
        getattr(steps, step)(*given, str(tmp_path / "out"))
    reference = told["reference"]
    assert isinstance(reference, Classifier)
    assert content_hash(reference.graph) == content_hash(source.classifier.graph)
    assert told["chance"] == (0.9 if calibrated else 1.0)
