"""``modelmend explain``: why groups were cut, from the artifacts of a run alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.cuts import card, explanation, graph, log, record

from modelmend.artifacts import SCHEMAS, Artifact, read_artifact, write_json, writing
from modelmend.cli.cards import probability, spans
from modelmend.cli.cuts import open_cuts
from modelmend.cli.explain import _excited
from modelmend.cli.main import main
from modelmend.probe.trigger import Trigger
from modelmend.rundir import RunDirectory
from modelmend.samples.data import Samples, make_samples
from modelmend.steps.stores import save_samples, save_triggers

CONFIG = {"config": {"least_reward": 0.2, "least_fall": 0.25, "least_growth": 1.4}}
FIT = (1, 4, 7, 10)
"""Positions of the fit split among all samples."""


@pytest.fixture
def pictures() -> None:
    """Lets a test draw."""
    pytest.importorskip("matplotlib")


@pytest.fixture(autouse=True)
def _undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing is slow: only where a test is about it."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setitem(sys.modules, "matplotlib", None)


def samples() -> Samples:
    x = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    return make_samples(x, torch.arange(12) % 3, source="made")


def triggers() -> list[Trigger]:
    """As the probe left them: one of a class that nobody is accused of, then those that the search followed."""
    delta = {name: torch.full((1, 8, 8), size) for name, size in (("other", 0.3), ("patch", 0.1), ("additive", 0.2))}
    return [
        Trigger("patch", 0, {"delta": delta["other"]}),
        Trigger("patch", 1, {"delta": delta["patch"]}),
        Trigger("additive", 1, {"delta": delta["additive"]}),
    ]


def finished(
    folder: Path, *, cuts: dict[str, Any] | None = None, rows: list[dict[str, Any]] | None = None, drawn: bool = True
) -> RunDirectory:
    """A run directory as far as pruning, small enough for a test."""
    run = RunDirectory(folder / "run")
    with writing(run.stage("suspect"), SCHEMAS["suspect"], producer="import_model") as work:
        write_json(work / "suspect.json", {"content_hash": "sha256:" + "a" * 64})
    with writing(run.stage("samples"), SCHEMAS["samples"], producer="validate_samples") as work:
        part = torch.ones(12, dtype=torch.int8)
        part[list(FIT)] = 0
        save_samples(work, samples(), part, {"hash": "h", "measured_apart": 0})
    with writing(run.stage("evidence"), SCHEMAS["evidence"], producer="probe_backdoor") as work:
        evidence().write(work / "evidence.json")
        save_triggers(work / "triggers.safetensors", triggers())
    inputs = {role: read_artifact(run.stage(role), SCHEMAS[role]) for role in ("suspect", "samples", "evidence")}
    pruned(run.stage("pruned"), inputs, cuts or record(), log() if rows is None else rows, drawn)
    return run


def evidence() -> Any:
    from tests.evidence import evidence as found

    return found(backdoor=True, success=0.9)


def pruned(
    path: Path, inputs: dict[str, Artifact], cuts: dict[str, Any], rows: list[dict[str, Any]], drawn: bool
) -> None:
    with writing(path, SCHEMAS["pruned"], producer="prune_neurons", inputs=inputs, params=CONFIG, seed=4) as work:
        write_json(work / "pruning.json", cuts)
        (work / "search.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        if drawn:
            write_json(work / "graph.json", graph())


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout with runs of spaces as one, stderr."""
    with pytest.raises(SystemExit) as stop:
        main(["explain", *map(str, arguments)])
    out = capsys.readouterr()
    return int(stop.value.code or 0), " ".join(out.out.split()), out.err


def test_the_overview_has_the_figures_the_score_and_a_row_a_cut(tmp_path: Path, capsys: Any) -> None:
    code, text, _ = told(capsys, finished(tmp_path).path)
    assert code == 0
    assert f"suspect {'a' * 12}, pruned {'b' * 12}, seed 4" in text
    assert "cut 2 of 6 neuron groups (33.3 %)" in text
    assert "92.5 % before the cuts, 20.0 % after" in text  # by weight, not the plain mean
    assert "-2.1 points on fit and reward samples, -3.4 on select samples" in text
    assert "explainability 0.62 (95 % interval 0.31 .. 0.81; a random listing 0.17)" in text
    assert "harmonic mean" in text and "share 100 % (random groups 11 %)" in text
    first, second = text.index("1 5 conv2 43 % 60.0 % probe +25.0 40 % rank"), text.index("2 4 conv2 0.47 % 20.0 %")
    assert first < second
    assert "rank 7 acc. +1.2" in text and "7 % probe contrast" in text


def test_a_share_of_all_cuts_listed_is_said_to_be_no_news(tmp_path: Path, capsys: Any) -> None:
    told_of_all = "Every cut is listed"
    assert told_of_all in told(capsys, finished(tmp_path / "a").path)[1]
    some = record(explanation=explanation(listed=[4]))
    assert told_of_all not in told(capsys, finished(tmp_path / "b", cuts=some).path)[1]


def test_a_group_shows_its_whole_card_with_the_ids_of_its_samples(tmp_path: Path, capsys: Any) -> None:
    run = finished(tmp_path)
    code, text, _ = told(capsys, run.path, "--group", 5)
    ids = samples().ids
    assert code == 0
    assert "group 5: layer conv2, channel 2" in text
    assert "step 1: the agent gave it 43 % (rank 1), and stopping 12 %" in text
    assert "probe success +25.0, accuracy +1.2 points, reward -0.210" in text
    assert "trigger gradient 4.5 0.5 +2.8 100" in text
    assert "rank under the best rule 40.0 % group 1 12.5 % 1 to 5 33.0 %" in text
    assert "fidelity+ 1: without the parts that weigh most the agent's answer changes." in text
    assert "fidelity- 0: these parts alone give it, too." in text
    assert "4 similar 0.90 yes" in text
    assert f"clean 1.50 2 1 {ids[7][:12]}" in text  # place 2 of the fit split is sample 7, of class 1
    assert f"patch, class 1 5.00 3 1 {ids[10][:12]}" in text
    assert "7.00" not in text and "9.00" not in text  # exaggerated, or found again on a pruned network
    assert not (run.path / "explain").exists()


def test_a_group_that_was_not_cut_is_told_with_those_that_were(tmp_path: Path, capsys: Any) -> None:
    code, _, error = told(capsys, finished(tmp_path).path, "--group", 3)
    assert code == 2
    assert "group 3 was not cut" in error and "4, 5" in error and str(tmp_path) in error


def test_json_is_the_record_and_nothing_else(tmp_path: Path, capsys: Any) -> None:
    run = finished(tmp_path)
    with pytest.raises(SystemExit):
        main(["explain", str(run.path), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {key: found[key] for key in explanation()} == explanation()
    assert (found["groups_cut"], found["select_drop"], len(found["triggers"])) == (2, 0.034, 5)
    assert not (run.path / "explain").exists()
    with pytest.raises(SystemExit):
        main(["explain", str(run.path), "--json", "--group", "4"])
    assert json.loads(capsys.readouterr().out) == card(4, 2)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"event": "nothing to do", "reason": "no candidate trigger"}, "no candidate trigger"),
        (
            {"event": "not worth it", "round": 1, "reward": 0.12},
            "search round 2 is worth 0.12 (fall in probe success less its costs), and cutting begins at 0.20",
        ),
        (
            {"event": "verified", "cut": [4], "growth": [{"family": "patch", "target": 1, "ratio": 1.13}]},
            "became 1.4 times as large (patch to class 1 x1.13)",
        ),
        ({"event": "candidate", "cut": [4], "score": -1.0, "select_drop": 0.0}, "none of 1 candidate sets of cuts"),
    ],
)
def test_a_run_that_cut_nothing_says_why(row: dict[str, Any], why: str, tmp_path: Path, capsys: Any) -> None:
    nothing = {"cards": [], "path": [], "score": None, "listed": []}
    run = finished(tmp_path, cuts=record(cut=[], groups_cut=0, explanation=nothing), rows=[row])
    code, text, _ = told(capsys, run.path)
    assert code == 0
    assert "cut none of 6 neuron groups" in text and why in text
    assert told(capsys, run.path, "--group", 4)[0] == 0
    code, text, _ = told(capsys, run.path, "--json")
    assert code == 0 and why in json.loads(text)["why_nothing"][0]


def test_pictures_go_beside_the_artifacts_without_the_graph_library(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, pictures: None
) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    run = finished(tmp_path)
    _, text, _ = told(capsys, run.path)
    for name in ("graph.png", "samples.png"):
        assert (run.path / "explain" / name).read_bytes().startswith(b"\x89PNG")
        assert str(run.path / "explain" / name) in text
    for role in ("suspect", "samples", "evidence", "pruned"):
        read_artifact(run.stage(role), SCHEMAS[role])  # raises if a file was added or changed


def test_samples_are_shown_with_the_trigger_of_the_suspect_that_excites_the_group_most(tmp_path: Path) -> None:
    rows = _excited(open_cuts(finished(tmp_path).path))
    assert [row.title.split("\n")[0] for row in rows] == ["group 4", "group 5"]
    assert rows[0].title.endswith("additive, class 1")
    before, after, caption = rows[0].triggered[0]
    assert torch.equal(before, samples().x[FIT[0]]) and torch.allclose(after, before + 0.2)
    assert caption == "0, 1, 8.00"
    assert torch.equal(rows[0].clean[0][0], samples().x[FIT[2]])


def test_samples_of_another_run_are_not_shown(tmp_path: Path, capsys: Any, pictures: None) -> None:
    run = finished(tmp_path)
    with writing(run.stage("samples"), SCHEMAS["samples"], producer="validate_samples") as work:
        save_samples(work, samples(), torch.zeros(12, dtype=torch.int8), {"hash": "other", "measured_apart": 0})
    _, text, _ = told(capsys, run.path)
    assert "no picture of samples" in text and not (run.path / "explain" / "samples.png").exists()
    assert "clean 1.50 2 - -" in told(capsys, run.path, "--group", 5)[1]


def test_without_matplotlib_the_tables_are_there_and_the_extra_is_named(tmp_path: Path, capsys: Any) -> None:
    run = finished(tmp_path)
    code, text, _ = told(capsys, run.path, "--out", tmp_path / "out")
    assert code == 0 and "probe +25.0" in text
    assert "pip install 'modelmend[plots]'" in text
    assert not (tmp_path / "out").exists() and not (run.path / "explain").exists()


def test_a_run_of_an_earlier_version_still_has_its_tables(tmp_path: Path, capsys: Any, pictures: None) -> None:
    old = explanation()
    del old["probe"]
    code, text, _ = told(capsys, finished(tmp_path, cuts=record(explanation=old), drawn=False).path)
    assert code == 0
    assert "97.5 % before the cuts, 61.3 % after" in text and "not weighted" in text
    assert "additive x1.5 1 - 100.0 % 90.0 %" in text  # pairs in the order of the log's figures
    assert "no picture of the graph" in text and "samples.png" in text


def test_a_pruned_artifact_alone_is_enough_for_tables_and_graph(tmp_path: Path, capsys: Any, pictures: None) -> None:
    alone = finished(tmp_path).stage("pruned").rename(tmp_path / "pruned")
    code, text, _ = told(capsys, alone)
    assert code == 0 and "probe +25.0" in text and "give --out DIR" in text
    told(capsys, alone, "--out", tmp_path / "pictures")
    assert [p.name for p in (tmp_path / "pictures").iterdir()] == ["graph.png"]


def test_an_artifact_in_a_run_finds_the_run(tmp_path: Path, capsys: Any) -> None:
    run = finished(tmp_path)
    assert f"suspect {'a' * 12}" in told(capsys, run.stage("pruned"))[1]
    assert f"suspect {'a' * 12}" in told(capsys, tmp_path)[1]  # the folder of a demo


def test_no_picture_is_written_into_an_artifact(tmp_path: Path, capsys: Any, pictures: None) -> None:
    run = finished(tmp_path)
    code, _, error = told(capsys, run.path, "--out", run.stage("samples") / "more")
    assert code == 2 and str(run.stage("samples")) in error and "--out" in error
    read_artifact(run.stage("samples"), SCHEMAS["samples"])


def test_what_is_no_finished_run_is_told_with_path_and_fix(tmp_path: Path, capsys: Any) -> None:
    run = finished(tmp_path)

    def error_of(path: Path) -> str:
        code, _, error = told(capsys, path)
        assert code == 2 and str(path) in error and "fix:" in error and "internal" not in error
        return error

    assert "not a run directory" in error_of(tmp_path / "none")
    assert "modelmend.samples/1" in error_of(run.stage("samples"))
    (run.stage("pruned") / "pruning.json").write_text("{}")
    assert "differ from the manifest" in error_of(run.path)
    (run.stage("pruned") / "manifest.json").unlink()
    assert "--run-dir" in error_of(run.path)


def test_names_out_of_a_model_file_do_not_drive_the_terminal(tmp_path: Path, capsys: Any) -> None:
    cards = [card(4, 2, layer="[red]x[/red]"), card(5, 1, layer="a\x1b[2Jb")]
    _, text, _ = told(capsys, finished(tmp_path, cuts=record(explanation=explanation(cards=cards))).path)
    assert "[red]x[/red]" in text and "a\\x1b[2Jb" in text and "\x1b[2J" not in text


def test_cuts_without_evidence_are_listed(tmp_path: Path, capsys: Any) -> None:
    code, text, _ = told(capsys, finished(tmp_path, cuts=record(explanation={})).path)
    assert code == 0 and "drew up no evidence" in text and "4 conv2 channel 1" in text


@pytest.mark.parametrize(
    ("numbers", "text"), [([7, 0, 1, 2], "0-2, 7"), ([3], "3"), (list(range(0, 80, 2)), "0, 2, 4, 6, 8, 10, 12, ...")]
)
def test_channels_are_shown_as_spans(numbers: list[int], text: str) -> None:
    assert spans(numbers, 28) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0 %"), (0.0000466, "0.0047 %"), (0.0818, "8.2 %"), (0.43, "43 %"), (1.0, "100 %")]
)
def test_small_probabilities_do_not_become_zero(value: float, text: str) -> None:
    assert probability(value).replace("\u00a0", " ") == text
