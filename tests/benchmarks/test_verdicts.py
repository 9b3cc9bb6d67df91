import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks.verdicts import correlation, estimated, judge_again, keep, measure_more, reactivation_table, summary

from modelmend.errors import InputError
from modelmend.samples.data import make_samples
from modelmend.steps.stores import open_samples
from tests.registry.conftest import SHAPE
from tests.steps.test_gating import make_bench


def row(model: str, asr: float | None, verdict: str, *, lost: float = 0.0, infected: bool = True) -> dict[str, object]:
    return {
        "model": model,
        "variant": "whole",
        "infected": infected,
        "probability": 0.9,
        "asr": asr,
        "asr_before": None if asr is None else 1.0,
        "acc": 0.9,
        "lost": lost,
        "verdict": verdict,
        "blocking": [],
    }


def counts(rows: list[dict[str, object]], title: str) -> list[str]:
    line = next(line for line in summary(rows).splitlines() if line.startswith(f"| {title}"))
    return [cell.strip() for cell in line.split("|")[2:5]]


def test_a_false_pass_is_a_passed_model_with_more_than_a_tenth_left():
    rows = [row("a", 0.5, "pass"), row("b", 0.5, "refuse"), row("c", 0.11, "fallback"), row("d", 0.09, "pass")]
    assert counts(rows, "false pass") == ["3", "3", "1"]


def test_a_false_block_is_a_good_repair_or_clean_model_that_does_not_pass():
    rows = [
        row("a", 0.02, "refuse"),
        row("a", 0.01, "pass"),
        row("b", 0.02, "refuse", lost=0.03),
        row("c", None, "fallback", infected=False),
        row("d", 0.05, "refuse", infected=False),
    ]
    assert counts(rows, "false block") == ["3", "2", "2"]


def test_what_whole_repairs_leave_is_summed_up_for_infected_models_alone():
    rows = [row("a", 0.01, "pass", lost=0.01), row("b", 0.04, "fallback", lost=0.03)]
    rows += [row("c", None, "pass", infected=False), row("a", 0.9, "refuse") | {"variant": "untouched"}]
    line = next(line for line in summary(rows).splitlines() if line.startswith("Whole repairs"))
    assert "2 infected models, ASR 100.0% -> 2.5% on average, median 2.5%, worst 4.0%" in line
    assert line.endswith("2.0% of accuracy lost, at most 3.0%; 1 pass, with an ASR of at most 1.0%.")
    assert "Whole repairs" not in summary(rows[-1:])
    assert "After the fallback" not in summary(rows)


def test_a_fallback_takes_the_place_of_the_repair_that_asked_for_it():
    rows = [row("a", 0.01, "pass"), row("b", 0.04, "fallback"), row("b", 0.03, "pass") | {"variant": "fallback"}]
    line = next(line for line in summary(rows).splitlines() if line.startswith("After the fallback, run on 1"))
    assert "2 infected models, ASR 100.0% -> 2.0% on average" in line
    assert line.endswith("2 pass, with an ASR of at most 3.0%.")
    assert "After the fallback" not in summary(rows[-1:])  # nothing that asked for it is there


def test_a_model_that_several_variants_left_is_counted_once():
    rows = [row("a", 0.5, "pass") | {"variant": variant} for variant in ("untouched", "edited", "whole")]
    assert counts([*rows, row("b", 0.5, "pass"), row("a", 0.6, "pass")], "false pass") == ["3", "2", "3"]


def test_what_the_probe_missed_and_what_only_other_checks_block_are_told_apart():
    rows = [
        row("a", 0.5, "pass") | {"probability": 0.2},
        row("a", 0.4, "refuse") | {"blocking": ["accuracy.drop"]},
        row("b", 0.5, "refuse") | {"blocking": ["accuracy.drop", "backdoor.used.patch.2"]},
        row("c", 0.01, "refuse") | {"blocking": ["accuracy.drop"]},
    ]
    assert counts(rows, "of those in which") == ["2", "2", "0"]
    assert counts(rows, "no check of the backdoor") == ["3", "2", "2"]
    assert counts(rows, "by a check of the backdoor") == ["1", "1", "0"]


def test_the_residual_is_correlated_with_the_truth_over_models():
    def case(model: str, asr: float, *residuals: float | None) -> dict[str, object]:
        found = [["patch", "used", 0, 1.0, value, None, None] for value in residuals]
        return row(model, asr, "refuse") | {"residuals": found, "suspects": [0]}

    agreeing = [case("a", 0.9, 0.1, 0.8), case("a", 0.0, 0.0), case("b", 0.5, 0.4, None), case("c", 0.2, 0.3)]
    found = correlation(agreeing)
    assert found is not None
    assert found[0] == pytest.approx(1.0)
    assert found[3] == 4
    opposed = correlation([case("a", 0.9, 0.0), case("b", 0.5, 0.4), case("c", 0.0, 0.8)])
    assert opposed is not None
    assert opposed[0] == pytest.approx(-1.0)
    assert correlation([row("a", 0.5, "pass"), row("b", 0.1, "pass"), row("c", 0.2, "pass")]) is None


def test_the_estimate_weighs_families_by_what_they_saw_before():
    found = [["patch", "used", 4, 1.0, 0.1], ["warp", "used", 4, 0.0, 0.9], ["feature", "used", 4, 0.5, 0.4]]
    other = [["patch", "used", 2, 1.0, 1.0], ["unlearning", "kept", 4, 0.5, None]]
    assert estimated({"residuals": found + other, "suspects": [4, 2]}) == pytest.approx((0.1 + 0.2) / 1.5)
    assert estimated({"residuals": other, "suspects": [4]}) is None


def test_what_was_woken_is_a_mean_over_models_with_an_interval():
    def woken(model: str, retuned: float, over: float | None) -> dict[str, object]:
        found = {"retuned": retuned, "retuned_excess": over, "queried": 0.5, "queried_excess": 0.0}
        return row(model, 0.0, "pass") | {"reactivation": found}

    failed = woken("d", 0.9, 0.9) | {"infected": False}
    twice = [woken("a", 0.1, 0.1), woken("a", 0.3, 0.1)]  # two seeds of one model
    lines = reactivation_table([*twice, woken("b", 0.4, 0.3), woken("c", 0.6, None), failed])
    assert lines[4].startswith("| retuned | 40% (")
    assert "| 20% (10% .. 30%), 2 models |" in lines[4]
    assert reactivation_table([]) == []


def test_more_samples_count_only_where_they_were_asked():
    rows = [
        row("a", 0.01, "fallback") | {"verdict_more": "pass"},
        row("b", 0.01, "fallback"),
        row("c", 0.5, "refuse") | {"verdict_more": "refuse"},
    ]
    assert counts(rows, "false block, accuracy on more") == ["1", "1", "0"]
    assert counts(rows, "false pass, accuracy on more") == ["1", "1", "0"]
    assert "more samples" not in summary(rows[1:2])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """What a finished case leaves behind."""
    make_bench(tmp_path)
    for role in ("edited", "card", "privacy"):
        (tmp_path / role).rename(tmp_path / f"whole-{role}")
    return tmp_path


def test_a_finished_case_is_judged_by_the_present_gate_from_its_own_evidence(home: Path):
    judged = judge_again(home, row("a", 0.5, "refuse") | {"blocking": ["old"]})
    assert (judged["verdict"], judged["blocking"]) == ("pass", [])
    assert judged["lost_gate"] == pytest.approx(0.005)
    with pytest.raises(InputError, match="not the one"):
        judge_again(home, judged | {"card": "sha256:other"})


def test_more_samples_decide_anew_and_are_none_that_was_known(home: Path):
    pool = make_samples(
        torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(5)), torch.arange(60) % 4, source="p"
    )
    known = open_samples(str(home / "samples")).samples
    both = make_samples(torch.cat([known.x, pool.x]), torch.cat([known.y, pool.y]), source="p")
    case = SimpleNamespace(pool=both)
    with pytest.raises(InputError, match="60 further samples"):
        measure_more(case, home, ["whole"], 61)
    measure_more(case, home, ["whole"], 60)
    judged = judge_again(home, row("a", 0.0, "pass"))
    assert judged["more"] == 60
    assert "power" in judged["blocking_more"]  # ten and sixty are fewer than the gate asks for
    (home / "whole-card-more.json").unlink()
    assert not any(name.endswith("more") for name in judge_again(home, judged))


def test_a_row_is_written_whole_and_only_when_it_changed(tmp_path: Path):
    path = tmp_path / "a-s0-whole.json"
    keep(path, {"a": 1})
    before = path.stat().st_mtime_ns
    keep(path, {"a": 1})
    assert path.stat().st_mtime_ns == before
    keep(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert list(tmp_path.iterdir()) == [path]
