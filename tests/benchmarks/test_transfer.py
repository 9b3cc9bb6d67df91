import math

import pytest
import torch
from benchmarks.ablation import Diary
from benchmarks.table import interval
from benchmarks.transfer import learned_on, masks_to, table

from modelmend.pruning.environment import Outcome
from modelmend.pruning.scorers import RuleResult


def search(rule: float, *curve: tuple[int, float], asr: float = 0.0, drop: float = 0.0) -> dict[str, object]:
    return {"rule": rule, "curve": [list(step) for step in curve], "asr": asr, "drop": drop}


def cell(case: str, still, adapted, scratch) -> dict[str, object]:
    return {"case": case, "seed": 0, "arms": {"zero-shot": still, "adapted": adapted, "from scratch": scratch}}


CELLS = [
    cell("a", search(0.1, (10, 0.3)), search(0.1, (20, 0.4), (90, 0.6)), search(0.1, (60, 0.2), (300, 0.5))),
    cell("b", search(0.2, asr=0.5), search(0.2, (120, 0.3), asr=0.25, drop=0.01), search(0.2, (399, 0.4), asr=1.0)),
]


def row(text: str, start: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [part.strip() for part in line.strip("|").split("|")][1:]


def test_rewards_are_read_at_so_many_masks():
    text = table(CELLS)
    assert row(text, "adapted") == ["2", "0.300", "0.300", "0.400", "0.450", "0.450", "0.450", "12.5", "25.0", "0.5"]
    assert row(text, "from scratch")[1:7] == ["0.150", "0.150", "0.200", "0.200", "0.200", "0.450"]
    assert row(text, "zero-shot")[1:7] == ["0.250"] * 6


def test_differences_are_paired_and_have_an_interval():
    text = table(CELLS)
    assert row(text, "both at 133") == ["+0.050 [+0.000, +0.100]", "+0.250 [+0.100, +0.400]"]
    assert row(text, "at 133, from scratch at 400")[1] == "+0.000 [-0.100, +0.100]"
    assert row(table(CELLS[:1]), "both at 133")[1] == "+0.400"


def test_masks_needed_are_those_to_the_reward_of_from_scratch():
    assert "median over 400; within 133 in 1 of 2 cases, never in 1." in table(CELLS)
    assert masks_to(search(0.1, (20, 0.4), (90, 0.6)), 0.5) == 90
    assert masks_to(search(0.5, (20, 0.6)), 0.5) == 0
    assert masks_to(search(0.1, (20, 0.4)), 0.5) is None


def test_seeds_of_one_model_are_no_further_models():
    mean, low, high = interval({"a": [0.0, 0.0, 0.0, 0.4], "b": [0.3]})
    assert (mean, low, high) == pytest.approx((0.2, 0.1, 0.3))
    assert math.isnan(interval({"a": [0.0, 1.0]})[1])


def test_a_policy_does_not_meet_the_models_that_it_has_learned_on():
    class One:
        name = "gtsrb-resnet8-lf"

        class recipe:  # noqa: N801
            attack, arch, dataset = "lf", "resnet8", "gtsrb"

    models = [{"name": "gtsrb-resnet8-lf", "attack": "lf", "arch": "resnet8", "dataset": "gtsrb"}]
    other = [{"name": "other", "attack": "lf", "arch": "cnn_small", "dataset": "digits"}]
    assert learned_on(One, {"models": models})["model"]
    assert learned_on(One, {"models": other}) == {"model": False, "attack": True, "arch": False, "dataset": False}


def test_a_search_is_read_off_mask_by_mask():
    def judge(keep):
        reward = (~keep).float() @ torch.tensor([0.1, 0.3, 0.6])
        return Outcome(reward, reward[:, None], reward, keep[:, 2])  # a mask that cuts the last group is not whole

    diary = Diary(judge)
    diary(torch.tensor([[False, True, True]]))  # before the search: a rule's
    diary(torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, True]]))
    told = diary.after(1, RuleResult("r", torch.zeros(3), 0.1, (0,)))
    assert [number for number, _ in told["curve"]] == [2, 4]
    assert told["cut"] == [0, 1] and told["masks"] == 4
    assert told["rewards"]["50"] == pytest.approx(0.4)
