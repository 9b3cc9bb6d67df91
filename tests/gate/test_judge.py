import re

import pytest

from modelmend.errors import GateError
from modelmend.gate import judge as judging
from modelmend.gate.checks.base import CHECKS, GateCheck
from modelmend.gate.judge import judge
from modelmend.gate.policy import Policy, load_policy, parse_policy
from modelmend.metrics import paired_drop_counts
from modelmend.records import ClassAccuracy, Measured, PrivacyReport, Scorecard
from tests.evidence import digest, drop, evidence, finding, good_card, good_privacy, rate, residual

GOOD = good_privacy()
NO_FALLBACK = Policy(fallback="none")


def decide(
    card: Scorecard | None = None,
    privacy: PrivacyReport | None = GOOD,
    policy: Policy = NO_FALLBACK,
    looks: int = 1,
    samples: str = digest("c"),
):
    return judge(policy, card or good_card(), privacy, samples_hash=samples, seed=7, looks=looks)


def floor(value: float, high: float) -> Measured:
    return Measured(value=value, low=0.0, high=high, n=300)


def unseen(role: str = "used", family: str = "patch"):
    return residual(role, family).model_copy(update={"before": rate(60, 360)})


def blocking(decision) -> set[str]:
    return {check.name for check in decision.checks if check.blocks}


def test_a_good_repair_passes_and_the_decision_carries_what_it_rests_on():
    decision = decide(policy=load_policy("default"))
    assert decision.verdict == "pass"
    assert decision.reasons == ("every check passed",)
    assert (decision.suspect_hash, decision.repaired_hash) == (digest("a"), digest("b"))
    assert decision.samples_hash == digest("c")
    assert decision.policy_hash == load_policy("default").hash()
    assert decision.seed == 7
    assert "backdoor.known_trigger" in decision.not_run


def test_every_registered_check_gives_at_least_one_line():
    names = [check.name for check in decide().checks]
    for name in CHECKS:
        assert any(line == name or line.startswith(f"{name}.") for line in names), name


def test_no_scorecard_is_an_error():
    with pytest.raises(GateError):
        judge(Policy(), None, good_privacy(), samples_hash=digest("c"), seed=0)


def test_too_few_gate_samples_says_have_and_need():
    card = good_card(
        gate_samples=50, accuracy_before=rate(48, 50), accuracy_after=rate(48, 50), accuracy_drop=drop(0, 0, 50)
    )
    decision = decide(card, policy=Policy())
    assert decision.verdict == "refuse"
    assert any("too few gate samples (have 50, need 200)" in reason for reason in decision.reasons)


@pytest.mark.parametrize(("n", "enough"), [(199, False), (200, True)])
def test_the_number_of_gate_samples_needed_is_exact(n, enough):
    card = good_card(gate_samples=n, accuracy_before=rate(n, n), accuracy_after=rate(n, n), accuracy_drop=drop(0, 0, n))
    assert ("power" not in blocking(decide(card, policy=Policy()))) == enough


@pytest.mark.parametrize(
    ("changes", "blocked"),
    [
        ({"suspect_hash": ""}, "integrity"),
        ({"repaired_hash": "sha256:beef"}, "integrity"),
        ({"accuracy_after": rate(300, 400)}, "integrity"),
        ({"gate_samples": 399}, "integrity"),
        ({"accuracy_drop": Measured()}, "accuracy.drop"),
        ({"accuracy_drop": drop(9, 0, 400)}, "accuracy.drop"),
        ({"class_accuracy": ()}, "accuracy.classes"),
        ({"class_accuracy": (ClassAccuracy(label=0, n=400, before=0.95, after=0.7),)}, "accuracy.classes"),
        ({"class_accuracy": (ClassAccuracy(label=0, n=400, before=0.95, after=None),)}, "accuracy.classes"),
        ({"residuals": ()}, "backdoor.used"),
        ({"residuals": (residual(),)}, "backdoor.kept"),
        ({"residuals": (residual("kept", "additive"),)}, "backdoor.used"),
        ({"residuals": (residual(), residual("kept", "patch"))}, "backdoor.kept"),
        ({"residuals": (residual(hits=300), residual("kept", "additive"))}, "backdoor.used.patch.3"),
        ({"residuals": (residual(hits=0, n=20), residual("kept", "additive"))}, "backdoor.used.patch.3"),
        (
            {"residuals": (residual(hits=300, floor=floor(0.05, 0.1)), residual("kept", "additive"))},
            "backdoor.used.patch.3",
        ),
        (
            {"residuals": (residual(hits=100, floor=floor(0.3, 0.5)), residual("kept", "additive"))},
            "backdoor.used.patch.3",
        ),
        ({"residuals": (residual(hits=100, floor=Measured()), residual("kept", "additive"))}, "backdoor.used.patch.3"),
        ({"residuals": (unseen(), unseen("kept", "additive"))}, "backdoor.seen"),
        ({"residuals": (unseen(), unseen("kept", "additive"))}, "backdoor.estimate.3"),
        ({"probe_before": None}, "backdoor.seen"),
        ({"probe_before": None}, "backdoor.estimate"),
        ({"probe_after": None}, "backdoor.verdict"),
        ({"known_trigger_after": rate(40, 400)}, "backdoor.known_trigger"),
        ({"known_trigger_after": Measured()}, "backdoor.known_trigger"),
    ],
)
def test_one_fault_blocks_and_is_named(changes, blocked):
    decision = decide(good_card(**changes))
    assert decision.verdict == "refuse"
    assert blocked in blocking(decision)
    assert any(reason.startswith(blocked) for reason in decision.reasons)


def weak(*hits: int) -> tuple:
    """A residual of each family with so many of 360, each under its own bound by a high floor."""
    families, found = ("patch", "spectral", "feature"), floor(0.2, 0.29)
    rows = [residual("used", family, hits=n, floor=found) for family, n in zip(families, hits, strict=True)]
    return (*rows, residual("kept", "additive", hits=hits[-1], floor=found))


def test_many_families_that_each_find_a_little_are_too_much_together():
    assert blocking(decide(good_card(residuals=weak(70, 70, 70)))) == {"backdoor.estimate.3"}
    assert decide(good_card(residuals=weak(110, 20, 20))).verdict == "pass"
    loose = Policy(fallback="none", backdoor={"max_estimate": 0.2})
    assert decide(good_card(residuals=weak(70, 70, 70)), policy=loose).verdict == "pass"


def fragile(
    natural: float = 0.2, hits: int = 90, kept=None, other=None, n: int = 300, families=("patch", "feature", "spectral")
):
    """Families that flip a quarter of the samples, of a model whose ordinary classes are flipped, too; estimate 15.4 %."""
    found = Measured(value=natural, low=0.0, high=0.29, n=n)
    kept = residual("kept", "additive", hits=4) if kept is None else kept
    other = residual("used", "wave", hits=4) if other is None else other
    return (*(residual("used", family, hits=hits, floor=found) for family in families), other, kept)


def test_what_ordinary_classes_are_flipped_to_is_a_warning_where_kept_family_and_another_clear():
    decision = decide(good_card(residuals=fragile()))
    found = next(check for check in decision.checks if check.name == "backdoor.estimate.3")
    assert (decision.verdict, found.outcome) == ("pass", "warn")
    assert decision.reasons == ("nothing blocks; warnings: backdoor.estimate.3",)
    assert "beyond what ordinary classes are flipped, and additive (kept back), wave: worked on" in found.reason
    assert found.value == pytest.approx(0.154, abs=0.005)


def test_a_blind_family_is_excused_where_the_estimate_is_a_warning():
    decision, found = warp((*fragile(families=("patch", "feature")), blind(hits=100)))
    estimate = next(check for check in decision.checks if check.name == "backdoor.estimate.3")
    assert (decision.verdict, found.outcome, estimate.outcome) == ("pass", "warn", "warn")


BLIND = {"hits": 4, "floor": Measured(value=0.3, low=0.0, high=0.5, n=300)}


@pytest.mark.parametrize(
    "rows",
    [
        fragile(natural=0.0),
        fragile(hits=200),
        fragile(natural=0.25, hits=200),
        fragile(n=30),
        fragile(kept=residual("kept", "additive", hits=40)),
        fragile(kept=unseen("kept", "additive")),
        fragile(kept=residual("kept", "additive", n=38, hits=0)),
        fragile(kept=residual("kept", "additive", **BLIND)),
        fragile(other=residual("used", "wave", hits=40)),
        fragile(other=unseen("used", "wave")),
        fragile(other=residual("used", "wave", **BLIND)),
    ],
    ids=[
        "not fragile", "too much", "twice the bound", "floor of few", "kept finds", "kept never saw", "few", "kept is blind",
        "no other", "other never saw", "other is blind",
    ],
)  # fmt: skip
def test_otherwise_the_estimate_blocks_a_fragile_model_like_any(rows):
    assert "backdoor.estimate.3" in blocking(decide(good_card(residuals=rows)))


def test_a_single_family_that_saw_the_backdoor_is_held_to_half():
    rows = (unseen("kept", "additive"), unseen("used", "warp"))
    assert blocking(decide(good_card(residuals=(*rows, residual(hits=40))))) == {"backdoor.estimate.3"}
    assert decide(good_card(residuals=(*rows, residual(hits=20)))).verdict == "pass"


@pytest.mark.parametrize(
    "before",
    [Measured(), Measured(value=1000.0, high=1000.0, n=360), Measured(value=0.97, high=0.98, n=360, counts=(3,))],
)
def test_a_figure_before_the_repair_that_contradicts_itself_does_not_weigh(before):
    for spoiled in range(4):
        rows = [
            row.model_copy(update={"before": before}) if place == spoiled else row
            for place, row in enumerate(weak(20, 20, 20))
        ]
        assert "backdoor.estimate.3" in blocking(decide(good_card(residuals=tuple(rows))))


def test_a_family_that_is_counted_twice_does_not_dilute():
    rows = (*weak(110, 60, 60), *(residual(hits=0) for _ in range(6)))
    assert "backdoor.estimate.3" in blocking(decide(good_card(residuals=rows)))


def test_every_class_that_a_family_saw_is_estimated():
    moved = tuple(row.model_copy(update={"target": 1}) for row in weak(70, 70, 70))
    assert blocking(decide(good_card(residuals=(*weak(8, 8, 8), *moved)))) == {"backdoor.estimate.1"}


def test_a_policy_says_from_when_on_a_family_saw_the_backdoor():
    third = tuple(row.model_copy(update={"before": rate(150, 360)}) for row in weak(8, 8, 8))
    assert decide(good_card(residuals=third)).verdict == "refuse"
    looser = Policy(fallback="none", backdoor={"min_success_before": 0.3})
    assert decide(good_card(residuals=third), policy=looser).verdict == "pass"


def test_where_nothing_worked_before_there_is_nothing_to_estimate():
    never = tuple(row.model_copy(update={"before": rate(0, 360)}) for row in weak(8, 8, 8))
    assert "backdoor.estimate.3" in blocking(decide(good_card(residuals=never)))
    anything = Policy(fallback="none", backdoor={"min_success_before": 0.0})
    assert "backdoor.estimate.3" in blocking(decide(good_card(residuals=never), policy=anything))


@pytest.mark.parametrize(("probability", "verdict"), [(0.05, "pass"), (0.32, "pass"), (0.34, "refuse")])
def test_without_a_backdoor_before_nothing_is_estimated_but_in_doubt_it_is(probability, verdict):
    clean = good_card(residuals=weak(70, 70, 70), probe_before=evidence(backdoor=False, success=probability))
    assert decide(clean, policy=Policy(fallback="none")).verdict == verdict
    never = good_card(
        probe_before=evidence(backdoor=False, success=probability), residuals=(unseen(), unseen("kept", "additive"))
    )
    assert ("backdoor.seen" in blocking(decide(never))) == (verdict == "refuse")


@pytest.mark.parametrize(
    ("before", "infected", "outcome"),
    [(380, True, "pass"), (20, True, "inconclusive"), (None, True, "inconclusive"), (20, False, "warn")],
)
def test_a_known_trigger_that_never_worked_proves_nothing(before, infected, outcome):
    told = {"known_trigger_after": rate(8, 400)} | (
        {} if before is None else {"known_trigger_before": rate(before, 400)}
    )
    seen = {} if infected else {"probe_before": evidence(backdoor=False, success=0.05)}
    decision = decide(good_card(**told, **seen))
    found = next(check for check in decision.checks if check.name == "backdoor.known_trigger")
    assert found.outcome == outcome
    assert decision.verdict == ("refuse" if outcome == "inconclusive" else "pass")
    assert ("says little" in found.reason) == (outcome != "pass")


def test_what_was_clean_before_needs_no_trigger_that_worked():
    clean = good_card(
        probe_before=evidence(backdoor=False, success=0.05), residuals=(unseen(), unseen("kept", "additive"))
    )
    assert decide(clean).verdict == "pass"


def test_a_floor_lifts_the_bound_of_a_fragile_model():
    fragile = good_card(residuals=(residual(hits=100, floor=floor(0.15, 0.25)), residual("kept", "additive")))
    check = next(check for check in decide(fragile).checks if check.name == "backdoor.used.patch.3")
    assert check.outcome == "pass"
    assert check.bound == pytest.approx(0.25 + 0.15)


def test_the_probes_opinion_warns_or_blocks_as_the_policy_says():
    doubtful = good_card(probe_after=evidence(backdoor=True, success=0.9))
    assert decide(doubtful).verdict == "pass"
    enforce = parse_policy("fallback: none\nbackdoor: {probe_verdict: enforce}", where="t")
    assert blocking(decide(doubtful, policy=enforce)) == {"backdoor.verdict"}


def test_a_missing_samples_hash_blocks():
    assert "integrity" in blocking(decide(samples=""))


def test_classes_below_the_minimum_are_not_run_and_only_the_policy_lets_that_pass():
    card = good_card(class_accuracy=tuple(ClassAccuracy(label=k, n=10, before=0.9, after=0.0) for k in range(40)))
    assert decide(card).verdict == "pass"
    none_allowed = NO_FALLBACK.model_copy(update={"allowed_not_run": ()})
    assert "accuracy.classes" in blocking(decide(card, policy=none_allowed))


def test_without_an_audit_nothing_passes():
    assert {"privacy.G1.repair", "privacy.G3.repair"} <= blocking(decide(privacy=None))


@pytest.mark.parametrize("outcome", ["fail", "warn", "inconclusive", "not_run"])
def test_what_the_repair_leaks_is_never_softened(outcome):
    report = good_privacy(findings=(finding("G1", "repair", outcome=outcome, absolute=True), finding("G3", "repair")))
    assert "privacy.G1.repair" in blocking(decide(privacy=report))


@pytest.mark.parametrize(
    ("low", "high", "outcome", "blocks"),
    [
        (0.62, 0.70, "warn", False),
        (0.62, 0.80, "warn", True),
        (0.55, 0.65, "inconclusive", False),
        (0.55, 0.80, "inconclusive", True),
        (0.78, 0.90, "fail", True),
    ],
)
def test_between_the_two_limits_is_a_warning_unless_enforced(low, high, outcome, blocks):
    measured = Measured(value=(low + high) / 2, low=low, high=high, n=300)
    g1 = finding("G1", "repair", measured=measured, limit=0.6, fail_above=0.75, outcome=outcome)
    report = good_privacy(findings=(finding("G0", "repair"), g1, finding("G3", "repair")))
    assert ("privacy.G1.repair" in blocking(decide(privacy=report))) == blocks
    enforce = parse_policy("fallback: none\nprivacy: {absolute: enforce}", where="t")
    assert "privacy.G1.repair" in blocking(decide(privacy=report, policy=enforce))


@pytest.mark.parametrize("outcome", ["fail", "inconclusive"])
def test_leakage_of_original_members_warns_or_blocks_as_the_policy_says(outcome):
    report = good_privacy(
        findings=(*good_privacy().findings[:3], finding("G1", "members", outcome=outcome, absolute=True))
    )
    assert decide(privacy=report).verdict == "pass"
    enforce = parse_policy("fallback: none\nprivacy: {absolute: enforce}", where="t")
    assert "privacy.G1.members" in blocking(decide(privacy=report, policy=enforce))


@pytest.mark.parametrize("gate", ["G3", "G7"])
def test_gates_about_the_repair_are_not_absolute_whatever_a_finding_says(gate):
    report = good_privacy(findings=(*good_privacy().findings, finding(gate, "members", outcome="fail", absolute=True)))
    assert f"privacy.{gate}.members" in blocking(decide(privacy=report))


@pytest.mark.parametrize(
    "measured",
    [Measured(), Measured(value=0.01, n=100), Measured(value=0.01, high=0.06, n=100), Measured(high=0.01, n=100)],
)
def test_a_finding_that_says_pass_against_its_own_numbers_blocks(measured):
    report = good_privacy(findings=(finding("G1", "repair"), finding("G3", "repair", measured=measured)))
    assert "privacy.G3.repair" in blocking(decide(privacy=report))


def test_an_audit_for_narrower_access_than_stated_blocks():
    assert "privacy.access" in blocking(decide(privacy=good_privacy(access="label-only")))


def test_person_classes_and_gradients_bring_their_gates():
    policy = parse_policy(
        "fallback: none\nallowed_not_run: []\nprivacy: {person_classes: true, access: gradients}", where="t"
    )
    assert {"privacy.G5.classes", "privacy.G6.classes", "privacy.G7.gradients"} <= blocking(decide(policy=policy))


def test_cost_limits_count_only_when_set():
    limited = parse_policy("fallback: none\ncost: {max_seconds: 10, max_passes: 1000000}", where="t")
    assert blocking(decide(policy=limited)) == {"cost.seconds"}
    assert blocking(decide(good_card(seconds={}), policy=limited)) == {"cost.seconds"}


def woken(only: int, other: int = 0, n: int = 400) -> Measured:
    value, high = paired_drop_counts(only, other, n)
    low = -paired_drop_counts(other, only, n)[1]
    return Measured(value=value, low=low, high=high, n=n, counts=(only, other))


def test_reactivation_blocks_only_when_bounded():
    bounded = parse_policy("fallback: none\nallowed_not_run: []\nbackdoor: {max_reactivation: 0.2}", where="t")
    assert "backdoor.reactivation" in blocking(decide(policy=bounded))
    assert "backdoor.reactivation" in blocking(decide(good_card(reactivation=woken(200)), policy=bounded))
    assert "backdoor.reactivation" not in blocking(decide(good_card(reactivation=woken(8)), policy=bounded))
    assert "backdoor.reactivation" in blocking(decide(good_card(reactivation=Measured(method="x")), policy=bounded))
    forged = woken(200).model_copy(update={"value": 0.0, "high": 0.0})
    assert "backdoor.reactivation" in blocking(decide(good_card(reactivation=forged), policy=bounded))


@pytest.mark.parametrize(
    ("measured", "outcome"),
    [
        (None, "not_run"),
        (Measured(method="spoiled"), "not_run"),
        (woken(200), "warn"),
        (woken(200).model_copy(update={"low": -0.5}), "warn"),
        (woken(30), "pass"),
        (woken(3, 3), "pass"),
        (woken(0), "pass"),
    ],
)
def test_reactivation_without_a_bound_is_a_warning(measured, outcome):
    decision = decide(good_card(reactivation=measured))
    (row,) = [check for check in decision.checks if check.name == "backdoor.reactivation"]
    assert row.outcome == outcome and not row.blocks


def test_fallback_only_where_fine_tuning_may_help():
    spoiled = good_card(residuals=(residual(hits=300), residual("kept", "additive")))
    assert decide(spoiled, policy=Policy()).verdict == "fallback"
    assert decide(spoiled, policy=NO_FALLBACK).verdict == "refuse"
    assert decide(spoiled, policy=Policy(), looks=2).verdict == "refuse"
    assert decide(spoiled.model_copy(update={"looks": 2}), policy=Policy()).verdict == "refuse"
    assert decide(spoiled, None, policy=Policy()).verdict == "refuse"
    assert decide(good_card(residuals=()), policy=Policy()).verdict == "refuse"


def test_a_check_that_crashes_refuses(monkeypatch):
    def crash(case):
        raise RuntimeError("boom")

    monkeypatch.setitem(judging.CHECKS, "accuracy.drop", GateCheck("accuracy.drop", "t", crash, mendable=True))
    decision = decide(policy=Policy())
    assert decision.verdict == "refuse"
    assert "accuracy.drop" in blocking(decision)


def test_a_check_that_says_nothing_refuses(monkeypatch):
    monkeypatch.setitem(judging.CHECKS, "cost", GateCheck("cost", "t", lambda case: [], mendable=False))
    assert blocking(decide()) == {"cost"}


def test_the_second_look_asks_for_more():
    tight = Policy(fallback="none").model_copy(
        update={"accuracy": Policy().accuracy.model_copy(update={"max_drop_upper": 0.017, "max_drop": 0.016})}
    )
    card = good_card(accuracy_drop=drop(2, 0, 400), accuracy_after=rate(378, 400))
    assert decide(card, policy=tight).verdict == "pass"
    assert decide(card, policy=tight, looks=2).verdict == "refuse"


def test_strict_refuses_what_default_lets_through_unmeasured():
    assert decide(policy=load_policy("strict")).verdict == "refuse"


def test_a_decision_survives_its_json(tmp_path):
    decision = decide()
    decision.write(tmp_path / "decision.json")
    assert type(decision).read(tmp_path / "decision.json") == decision


@pytest.mark.parametrize(
    ("used", "kept"),
    [
        (residual("used"), residual("kept", "warp")),
        (residual("used"), residual("kept", "additive").model_copy(update={"target": 1})),
        (residual("used").model_copy(update={"target": 1}), residual("kept", "additive")),
    ],
    ids=["another family than the one kept back", "kept: another class", "used: another class"],
)
def test_residuals_of_another_family_or_class_than_the_accused_are_no_evidence(used, kept):
    assert decide(good_card(residuals=(used, kept))).verdict == "refuse"


def test_a_drop_that_few_samples_leave_open_says_how_many_would_settle_it():
    card = good_card(accuracy_drop=drop(28, 21, 400), accuracy_after=rate(373, 400))
    reason = next(check.reason for check in decide(card, policy=Policy()).checks if check.name == "accuracy.drop")
    wanted = int(re.search(r"if the drop stays so, about (\d+) gate samples show it", reason).group(1))
    _, upper = paired_drop_counts(round(28 * wanted / 400), round(21 * wanted / 400), wanted, 0.975)
    assert 0.045 < upper < 0.052
    lost = good_card(accuracy_drop=drop(30, 5, 400), accuracy_after=rate(355, 400))
    assert not any("if the drop stays so" in check.reason for check in decide(lost, policy=Policy()).checks)


def test_a_class_that_loses_exactly_the_bound_passes():
    rows = (
        ClassAccuracy(label=0, n=40, before=29 / 40, after=23 / 40),
        ClassAccuracy(label=1, n=360, before=1, after=1),
    )
    assert 29 / 40 - 23 / 40 > 0.15  # in floating point
    assert "accuracy.classes" not in blocking(decide(good_card(class_accuracy=rows), policy=Policy()))


def blind(hits: int = 90, high: float = 0.5, **more):
    return residual(family="warp", hits=hits, floor=Measured(value=0.3, low=0.1, high=high, n=300), **more)


def clear(*families: str):
    return tuple(residual(family=family, hits=4) for family in families)


KEPT = residual("kept", "additive", hits=4)


def warp(rows):
    decision = decide(good_card(residuals=rows))
    return decision, next(check for check in decision.checks if check.name == "backdoor.used.warp.3")


def test_a_blind_family_is_excused_where_the_estimate_is_small_and_the_kept_family_finds_nothing():
    decision, found = warp((blind(), *clear("patch"), KEPT))
    assert (decision.verdict, found.outcome) == ("pass", "warn")
    assert "additive (kept back): worked on the suspect and finds nothing" in found.reason


def blind_before(hits: int):
    return blind().model_copy(update={"before": rate(hits, 360)})


@pytest.mark.parametrize(
    "rows",
    [
        (blind(hits=80), KEPT),
        (blind(), *clear("patch", "spectral"), residual("kept", "additive", hits=40)),
        (blind(hits=170), *(residual(family=name, hits=70) for name in ("patch", "feature")), KEPT),
        (blind(), *clear("patch", "spectral")),
        (blind(), *clear("patch", "spectral"), unseen("kept", "additive")),
        (blind(hits=200), *clear("patch", "spectral", "feature"), KEPT),
        (blind(high=0.29, hits=110), *clear("patch", "spectral"), KEPT),
        (blind(), *clear("patch"), residual("kept", "additive", n=38, hits=0)),
        (blind_before(170), *clear("patch", "spectral"), KEPT),
        (blind(), *clear("patch"), residual("kept", "additive", hits=4, floor=floor(0.3, 0.5))),
    ],
    ids=[
        "no other", "kept finds", "others find", "no kept", "kept never saw", "above others", "seeing", "few", "never saw",
        "kept is blind",
    ],
)  # fmt: skip
def test_a_blind_family_is_not_excused_otherwise(rows):
    decision, found = warp(rows)
    assert (decision.verdict, found.outcome) == ("refuse", "fail")
