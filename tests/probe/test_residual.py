from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from modelmend.model.classifier import Classifier
from modelmend.probe.estimate import attack_success_left, beyond_nature
from modelmend.probe.residual import HARMLESS, residual
from modelmend.probe.run import probe
from modelmend.records import Evidence, Measured, Residual

from .conftest import Case

BOUND = 0.25
Change = Callable[[torch.Tensor], torch.Tensor]


def harden(case: Case, triggers: list[Change], steps: int, left_in: Change | None = None) -> Classifier:
    """Train on clean samples and on samples with these triggers, true labels; one trigger may be kept working."""
    x, y = case.data.x_clean[:240], case.data.y_clean[:240]
    copy = case.classifier.clone()
    optimizer = torch.optim.Adam([p.requires_grad_(True) for p in copy.graph.parameters()], lr=2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        index = torch.randint(len(x), (64,), generator=generator)
        batch, goals = [x[index], *(trigger(x[index]) for trigger in triggers)], [y[index]] * (1 + len(triggers))
        if left_in is not None:
            batch, goals = [*batch, left_in(x[index])], [*goals, torch.full_like(y[index], case.target)]
        loss = torch.nn.functional.cross_entropy(copy(torch.cat(batch)), torch.cat(goals))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return copy.frozen()


def of(rows: list[Residual], target: int, role: str) -> list[float]:
    """Upper ends of the success that is left for this class."""
    found = [row.after.high or 1.0 for row in rows if row.target == target and row.role == role]
    assert found
    return found


_known: dict[tuple[int, tuple[str, ...]], Evidence] = {}


def evidence_of(case: Case, used: tuple[str, ...], kept: str) -> Evidence:
    key = (id(case), used)
    if key not in _known:
        _known[key] = probe(case.classifier, case.fit, case.reward, families=used, keep=kept, seed=3).evidence
    return _known[key]


def measured(case: Case, after: Classifier, used: list[str], kept: str) -> list[Residual]:
    evidence = evidence_of(case, tuple(used), kept)
    rows, _ = residual(case.classifier, after, case.fit, case.gate, evidence=evidence, used=used, kept=kept, seed=11)
    return rows


def test_an_infected_model_that_was_not_repaired_stays_high(infected: Case) -> None:
    rows = measured(infected, infected.classifier, ["patch"], "feature")
    target = next(row for row in rows if row.family == "patch" and row.target == infected.target)
    assert (target.after.value or 0) > 2 * BOUND
    assert (target.excess or 0) > 0.2


def test_a_clean_model_stays_low(clean: Case) -> None:
    rows = measured(clean, clean.classifier, ["patch"], "feature")
    assert all((row.after.high or 1) <= BOUND for row in rows)
    for row in rows:
        needed = (row.after.high or 1) > HARMLESS
        assert (row.floor is not None) == needed and row.excess is not None
        assert row.floor is None or (row.floor.value or 0) <= 0.1


def test_a_true_repair_brings_it_down(infected: Case) -> None:
    attack = infected.attack
    assert attack is not None
    found = probe(infected.classifier, infected.fit, infected.reward, families=["patch"], classes=[infected.target])
    after = harden(infected, [attack.apply, *found.triggers], 80)
    assert infected.true_success(after) < 0.05
    rows = measured(infected, after, ["patch"], "feature")
    assert max(of(rows, infected.target, "used") + of(rows, infected.target, "kept")) <= BOUND


def test_a_repair_that_beats_the_used_families_is_caught_by_the_kept_one(warped: Case) -> None:
    used = ["patch", "additive"]
    found = probe(warped.classifier, warped.fit, warped.reward, families=used, keep="warp", classes=[warped.target])
    assert warped.attack is not None
    after = harden(warped, list(found.triggers), 80, left_in=warped.attack.apply)
    assert warped.true_success(after) > 0.8
    rows = measured(warped, after, used, "warp")
    assert max(of(rows, warped.target, "used")) <= BOUND < min(of(rows, warped.target, "kept"))


def test_before_and_after_are_measured_at_the_same_size_and_carry_counts(infected: Case) -> None:
    rows = measured(infected, infected.classifier, ["additive"], "patch")
    for row in rows:
        assert (
            row.budget is not None
            and f"{row.budget:.4g}" in row.before.method
            and row.before.method == row.after.method
        )
        assert row.after.counts is not None and row.after.n
        assert row.after.value == pytest.approx(row.after.counts[0] / row.after.n)


def test_the_estimate_is_of_the_first_suspect_and_by_what_worked_before() -> None:
    def row(family: str, target: int, before: float | None, after: float) -> Residual:
        return Residual(
            family=family, role="used", target=target, before=Measured(value=before), after=Measured(value=after)
        )

    def evidence(backdoor: bool, *suspects: int) -> Evidence:
        return Evidence(
            mode="full", backdoor=backdoor, probability=0.9 if backdoor else 0.2, calibrated=True, suspects=suspects,
            families=("patch",), kept_family="unlearning", classes=(), seed=0, seconds=0.0, passes=0.0,
        )  # fmt: skip

    rows = [
        row("patch", 3, 1.0, 0.1),
        row("warp", 3, 0.0, 0.9),
        row("spectral", 3, None, 1.0),
        row("patch", 5, 1.0, 1.0),
    ]
    before, after = attack_success_left([*rows, row("feature", 3, 0.5, 0.4)], evidence(True, 3, 5))
    assert before is not None and before.value == pytest.approx(1.25 / 1.5)
    assert after is not None and after.value == pytest.approx(0.3 / 1.5)
    assert "2 families" in after.method
    _, alone = attack_success_left(rows, evidence(True, 3))
    assert alone is not None and alone.value == 0.1 and "1 family " in alone.method
    assert attack_success_left(rows[1:3], evidence(True, 3)) == (None, None)
    assert attack_success_left([row("patch", 3, 0.4, 0.0)], evidence(True, 3)) == (None, None)
    assert attack_success_left(rows, evidence(False, 3)) == (None, None)
    assert attack_success_left(rows, evidence(True)) == (None, None)


@pytest.mark.parametrize(
    ("after", "floor", "left"),
    [
        (0.4, None, 0.4),
        (0.4, Measured(value=0.25, high=0.3, n=90), 0.2),
        (0.2, Measured(value=0.25, high=0.3, n=90), 0.0),
        (1.0, Measured(value=0.25, high=0.3, n=90), 1.0),
        (1.0, Measured(value=1.0, high=1.0, n=90), 1.0),
        (0.4, Measured(value=0.25, high=0.2, n=90), 0.4),
        (0.4, Measured(value=0.25, high=1.2, n=90), 0.4),
        (0.4, Measured(value=-0.5, high=0.3, n=90), 0.4),
        (0.4, Measured(value=0.25, high=0.3), 0.4),
        (0.4, Measured(value=0.25, n=90), 0.4),
    ],
)
def test_what_ordinary_classes_are_flipped_to_is_taken_off(after: float, floor: Measured | None, left: float) -> None:
    """A floor that contradicts itself takes nothing off."""
    row = Residual(
        family="patch", role="used", target=0, before=Measured(value=1.0), after=Measured(value=after), floor=floor
    )
    assert beyond_nature(row) == pytest.approx(left)
    assert beyond_nature(row, least=91) == after
