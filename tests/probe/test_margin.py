from __future__ import annotations

import torch

from modelmend.probe.margin import largest_margins, margin_evidence
from modelmend.probe.run import probe
from modelmend.probe.witnesses import NOISES

from .conftest import Case


def test_the_class_of_a_backdoor_is_too_sure(infected: Case) -> None:
    rows = margin_evidence(infected.classifier, infected.fit[0], range(infected.classifier.num_classes), seed=0)
    assert max(rows, key=lambda row: row.strength or 0.0).target == infected.target


def test_a_class_does_not_depend_on_which_others_are_looked_at(infected: Case) -> None:
    x = infected.fit[0]
    both, alone = (largest_margins(infected.classifier, x, targets, seed=1) for targets in ([2, 5], [5]))
    assert torch.allclose(both[1], alone[0], rtol=1e-4)


def test_witnesses_help_to_accuse_but_hand_no_trigger_to_the_repair(infected: Case) -> None:
    found = probe(infected.classifier, infected.fit, infected.reward, mode="screen", seed=2)
    evidence = found.evidence
    assert {row.family for row in evidence.classes} == {*evidence.families, evidence.kept_family, *NOISES}
    assert {trigger.family for trigger in found.triggers} <= set(evidence.families)
    again = probe(infected.classifier, infected.fit, infected.reward, mode="screen", classes=[infected.target or 0])
    assert {row.family for row in again.evidence.classes} == set(evidence.families)
