from __future__ import annotations

import json

import pytest
import torch

from modelmend.errors import InputError
from modelmend.model.classifier import Classifier
from modelmend.privacy.audit import PrivacyConfig, audit
from modelmend.records import PrivacyFinding, PrivacyReport

from .conftest import Pair, fit, make


def _by_name(report: PrivacyReport) -> dict[tuple[str, str], PrivacyFinding]:
    return {(finding.gate, finding.subject): finding for finding in report.findings}


def test_a_repair_that_learned_its_samples_by_heart_is_flagged(
    suspect: Classifier, overfitted: Classifier, repair: Pair, gate: Pair
) -> None:
    report = audit(suspect, overfitted, None, None, repair, gate)
    found = _by_name(report)
    assert found["G0", "repair"].outcome == "pass"
    assert found["G1", "repair"].outcome == "fail"
    assert found["G3", "repair"].outcome == "fail"
    assert found["G1", "repair"].measured.low is not None and found["G1", "repair"].measured.low > 0.75
    assert any("can tell the samples that the repair used" in sentence for sentence in report.words)
    assert any(sentence.startswith("First: repair again") for sentence in report.words)


def test_a_repair_that_changes_nothing_passes(suspect: Classifier, repair: Pair, gate: Pair) -> None:
    found = _by_name(
        audit(suspect, suspect.clone(), None, None, repair, gate, config=PrivacyConfig(access="white-box"))
    )
    assert found["G1", "repair"].outcome == "pass"
    assert found["G3", "repair"].outcome == "pass"
    assert found["G1", "repair"].measured.method.count("gradient-norm") == 1


def test_models_that_leak_nothing_pass_at_n_240(suspect: Classifier) -> None:
    other = fit(*make(400, 50), epochs=3)
    passed = 0
    for seed in range(8):
        pool = make(480, 100 + seed)
        sides = [(pool[0][i::2], pool[1][i::2]) for i in (0, 1)]
        found = _by_name(audit(suspect, other, None, None, *sides, config=PrivacyConfig(defences=False), seed=seed))
        passed += found["G1", "repair"].outcome == "pass"
    assert passed >= 7


def test_without_members_their_gates_are_not_run(suspect: Classifier, repair: Pair, gate: Pair) -> None:
    report = audit(suspect, suspect, None, None, repair, gate)
    found = _by_name(report)
    for name in ("G0", "G1", "G2", "G3"):
        assert found[name, "members"].outcome == "not_run"
        assert "no members" in found[name, "members"].reason
    assert found["G2", "repair"].outcome == "not_run" and found["G2", "repair"].needed == 500
    assert found["G4", "canaries"].outcome == "not_run"
    assert ("G5", "classes") not in found and ("G7", "gradients") not in found
    assert report.screening
    json.loads(report.model_dump_json())


def test_what_the_suspect_leaks_about_its_members_is_found(
    suspect: Classifier, members: Pair, repair: Pair, gate: Pair
) -> None:
    found = _by_name(audit(suspect, suspect, members, make(500, 9), repair, gate))
    leak = found["G1", "members"]
    assert leak.absolute and leak.outcome in ("fail", "warn", "inconclusive")
    assert leak.measured.low is not None and leak.measured.low > 0.6
    assert found["G2", "members"].outcome != "not_run"
    assert found["G3", "members"].outcome == "pass" and not found["G3", "members"].absolute


def test_samples_that_differ_without_the_model_prove_nothing(suspect: Classifier, repair: Pair, gate: Pair) -> None:
    brighter = (repair[0] * 0.6 + 0.4, repair[1])
    found = _by_name(audit(suspect, suspect, brighter, gate, repair, gate))
    assert found["G0", "members"].outcome == "inconclusive"
    assert found["G1", "members"].outcome == "inconclusive"
    assert "without the model" in found["G1", "members"].reason


def test_samples_on_both_sides_are_left_out(suspect: Classifier, members: Pair, repair: Pair, gate: Pair) -> None:
    report = audit(
        suspect,
        suspect,
        members,
        (torch.cat([gate[0], members[0][:40]]), torch.cat([gate[1], members[1][:40]])),
        repair,
        gate,
    )
    row = next(row for row in report.attacks if row["subject"] == "members")
    assert (row["n_members"], row["n_nonmembers"]) == (360, 250)


def test_too_few_samples_are_never_a_pass(suspect: Classifier, repair: Pair, gate: Pair) -> None:
    few = [(x[:40], y[:40]) for x, y in (repair, gate)]
    found = _by_name(audit(suspect, suspect, None, None, *few))
    assert found["G0", "repair"].outcome == "inconclusive"
    assert found["G1", "repair"].outcome == "not_run" and found["G1", "repair"].needed == 100
    assert found["G3", "repair"].outcome == "not_run"
    with pytest.raises(InputError, match="gate"):
        audit(suspect, suspect, None, None, repair, (gate[0][:0], gate[1][:0]))


def test_an_attacker_only_uses_what_its_access_allows(suspect: Classifier, repair: Pair, gate: Pair) -> None:
    names = {
        access: {row["attack"] for row in audit(suspect, suspect, None, None, repair, gate, config=config).attacks}
        for access, config in (
            (access, PrivacyConfig(access=access, defences=False)) for access in ("label-only", "scores", "white-box")
        )
    }
    assert names["label-only"] == {"label-gap"}
    assert "gradient-norm" not in names["scores"] and "loss" in names["scores"]
    assert "gradient-norm" in names["white-box"]


def test_same_seed_same_report(suspect: Classifier, overfitted: Classifier, repair: Pair, gate: Pair) -> None:
    runs = [audit(suspect, overfitted, None, None, repair, gate, seed=4) for _ in range(2)]
    assert runs[0] == runs[1]


def test_rounding_hides_nothing_from_an_attacker_who_adapts(
    suspect: Classifier, overfitted: Classifier, repair: Pair, gate: Pair
) -> None:
    rows = {row["defence"]: row for row in audit(suspect, overfitted, None, None, repair, gate).defences}
    for name in ("rounding to 2 decimals", "top 3"):
        assert rows[name]["adaptive"]["value"] > rows[name]["without"]["value"] - 0.05
        assert not rows[name]["qualifies"]
    assert rows["label only"]["naive"]["value"] < rows["rounding to 2 decimals"]["naive"]["value"] + 0.02
