"""What any pruning could reach: ``python -m benchmarks.ceiling --data DIR --suite calibration --only resnet8-wanet``.

A greedy search on the *true* trigger, within the product's accuracy budget, over tied groups and over branches. It opens
the sealed trigger, so it is no method and nothing is chosen by it; it says how much of a backdoor groups can carry away.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from benchmarks.cases import Case, case_options, draw_budget, read_cases, wanted
from benchmarks.measure import final_measurement
from benchmarks.parts import divide
from modelmend.pruning.judge import MaskJudge
from modelmend.pruning.onp import PruningConfig, cut_clone, nodes
from modelmend.redteam.sealed import PURPOSE

MOST, WORTH = 12, 1e-3
"""Cuts at most, and the gain in reward below which the search ends."""


@dataclass(frozen=True)
class TrueTrigger:
    """The attacker's trigger in the place of a probe's."""

    attack: Any
    family: str = "true"
    lead: float | None = None

    @property
    def target(self) -> int:
        """Its class."""
        return int(self.attack.target_class)

    def __call__(self, x: Tensor) -> Tensor:
        """Triggered samples."""
        return cast("Tensor", self.attack.apply(x))


def ceiling(case: Case, budget: int, seed: int, *, branches: bool) -> dict[str, Any]:
    """Greedy forward selection: always the single best further cut."""
    assert case.sealed is not None
    trigger, classifier = TrueTrigger(case.sealed.open(purpose=PURPOSE)), case.classifier().frozen()
    parts, config = divide(draw_budget(case.pool, budget, seed), seed), PruningConfig(branches=branches)
    groups, reward = nodes(classifier, case.input_shape, config), (parts.reward.x, parts.reward.y)
    judge = MaskJudge(classifier, groups, parts.repair, reward, cast("Any", [trigger]), config.reward, seed=seed)
    keep, best = torch.ones(len(groups), dtype=torch.bool), 0.0
    while int((~keep).sum()) < MOST:
        masks = keep.repeat(len(groups), 1).fill_diagonal_(False)
        rewards = judge.patiently(masks).reward.masked_fill(~keep, -torch.inf)
        if float(rewards.max()) <= best + WORTH:
            break
        best = float(rewards.max())
        keep[int(rewards.argmax())] = False
    cut = (~keep).nonzero().flatten().tolist()
    before, after = (final_measurement(case, c) for c in (classifier, cut_clone(classifier, groups, cut)))
    return {"before": before.asr, "asr": after.asr, "lost": before.acc - after.acc, "cuts": len(cut), "of": len(groups)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ceiling", description=__doc__)
    case_options(parser, suite="calibration", budget=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.getLogger("modelmend.redteam.sealed").setLevel(logging.WARNING)
    print("| model | nodes | ASR % | points lost | cuts |\n|---|---|---|---|---|")
    for case in read_cases(options.suite, options.data, options.zoo):
        if not wanted(case, options.only) or case.sealed is None:
            continue
        for name, branches in (("tied", False), ("branches", True)):
            found = ceiling(case, options.budget, options.seed, branches=branches)
            figures = f"{100 * found['before']:.1f} -> {100 * found['asr']:.1f} | {100 * found['lost']:.1f}"
            print(f"| {case.name} | {name} | {figures} | {found['cuts']} of {found['of']} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
