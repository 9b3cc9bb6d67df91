import json

import pytest
from benchmarks.cases import draw_budget, read_cases
from benchmarks.parts import divide
from benchmarks.table import markdown, spread, summary

from benchmarks import efficacy, methods
from modelmend.errors import InputError
from modelmend.progress import silent


@pytest.fixture(scope="module")
def case():
    return read_cases("smoke", None, None)[0]


def run(case, out, names=("none", "clp"), seeds=(0,), budget=720):
    return efficacy.run([case], names, seeds, budget=budget, effort=0.01, out=out, progress=silent)


def test_doing_nothing_changes_nothing(case, tmp_path):
    (cell,) = run(case, tmp_path, names=("none",))
    assert cell["before"] == cell["after"]
    assert cell["before"]["asr"] >= 0.9
    assert cell["der"] == 0.5
    assert cell["compression"] == 0


def test_finished_cells_are_read_back_not_run_again(case, tmp_path, monkeypatch):
    first = run(case, tmp_path)
    monkeypatch.setattr(efficacy, "run_cell", lambda *_: pytest.fail("ran again"))
    assert run(case, tmp_path) == first


def test_fresh_runs_finished_cells_again(case, tmp_path, monkeypatch):
    run(case, tmp_path, names=("none",))
    ran = []
    original = efficacy.run_cell
    monkeypatch.setattr(efficacy, "run_cell", lambda *a, **k: ran.append(1) or original(*a, **k))
    efficacy.run([case], ["none"], [0], budget=720, effort=0.01, out=tmp_path, progress=silent, fresh=True)
    assert ran == [1]


def test_a_changed_method_runs_again(case, tmp_path, monkeypatch):
    settings = {"budget": 720, "effort": 0.01, "out": tmp_path, "progress": silent}
    before = efficacy.run([case], ["none"], [0], **settings)[0]
    monkeypatch.setattr(efficacy, "method_code", lambda: "sha256:other")
    after = efficacy.run([case], ["none"], [0], **settings)[0]
    assert before["settings"]["code"].startswith("sha256:")
    assert after["settings"]["code"] == "sha256:other"


def test_other_settings_run_again(case, tmp_path):
    run(case, tmp_path, names=("none",))
    (cell,) = run(case, tmp_path, names=("none",), budget=300)
    assert cell["settings"]["budget"] == 300


def test_trigger_stays_sealed_while_methods_work(case, tmp_path, monkeypatch):
    opened = []
    original = type(case.sealed).open
    monkeypatch.setattr(type(case.sealed), "open", lambda self, **k: opened.append(1) or original(self, **k))

    def method(classifier, parts, triggers, seed, progress):
        assert not opened
        return classifier

    monkeypatch.setattr(efficacy, "methods", lambda effort: {"spy": method})
    run(case, tmp_path, names=("spy",))
    assert len(opened) == 2


def test_defender_and_final_measurement_share_no_sample(case):
    pool = {row.numpy().tobytes() for row in case.pool.x}
    assert not pool & {row.numpy().tobytes() for row in case.x_final}
    parts = divide(draw_budget(case.pool, 300, 1), 1)
    ids = [set(part.ids) for part in (parts.fit, parts.reward, parts.select, parts.gate)]
    assert sum(map(len, ids)) == len(set.union(*ids))


def test_budget_is_stratified_and_differs_by_seed(case):
    one, two = draw_budget(case.pool, 200, 1), draw_budget(case.pool, 200, 2)
    assert abs(len(one) - 200) <= 10
    assert set(one.y.tolist()) == set(range(10))
    assert set(one.ids) != set(two.ids)


def test_failed_method_is_listed_not_hidden(case, tmp_path, monkeypatch):
    def method(*_):
        raise InputError("cannot do this")

    monkeypatch.setattr(efficacy, "methods", lambda effort: {"broken": method})
    cells = run(case, tmp_path, names=("broken",))
    text = markdown(cells, {})
    assert "cannot do this" in text and "| broken | 0/1 |" in text


def test_failed_attacks_and_clean_models_leave_the_averages(case, tmp_path):
    (cell,) = run(case, tmp_path, names=("none",))
    figures = {"acc": 0.1, "asr": 0.2, "ra": 0.1}
    failed = cell | {"infected": False, "model": "weak", "before": figures, "after": figures}
    clean = cell | {"infected": False, "attack": "clean", "model": "clean", "rate": None}
    text = markdown([cell, failed, clean], {})
    assert "- weak" in text.split("## Failed attacks")[1]
    assert "Clean models" in text
    assert summary([cell, failed, clean])[1][1] == "1/1"


def test_spread_is_mean_and_sample_deviation():
    assert spread([0.1, 0.3, None], 100) == "20.0 ± 14.1"
    assert spread([None]) == "-"


def test_registry_offers_baselines_and_our_methods():
    names = set(methods.METHODS)
    assert {"none", "fine-tuning", "ft-sam", "fine-pruning", "clp", "anp", "i-bau"} <= names
    assert {"onp", "edit", "modelmend"} <= names


def test_command_writes_json_and_table(tmp_path, capsys):
    arguments = ["--suite", "smoke", "--only", "badnets", "--methods", "none", "--out", str(tmp_path)]
    assert efficacy.main(arguments) == 0
    body = json.loads((tmp_path / "smoke.json").read_text())
    assert body["machine"]["torch"] and body["settings"]["budget"] == 1000
    assert "| none | 1/1 |" in (tmp_path / "smoke.md").read_text()
    assert "none" in capsys.readouterr().out


def test_command_names_what_is_missing(tmp_path, capsys):
    assert efficacy.main(["--suite", "small", "--zoo", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "modelmend.redteam.zoo" in capsys.readouterr().out.replace("\n", "")
    with pytest.raises(SystemExit):
        efficacy.main(["--methods", "magic", "--out", str(tmp_path)])
