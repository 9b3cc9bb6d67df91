"""Which parts of the pruning search earn their place: ``python -m benchmarks.ablation --data DIR --only resnet8``.

Every arm searches against the same triggers (the probe's, and those found again on the network that the best rule
pruned), judges the same number of masks beside the rules' own, and is measured by the reward it reaches and, at the
end, by the true ASR and clean accuracy of its best mask on samples that nobody searched on. ``--end-to-end`` runs the
whole pruning and variants of it instead. One JSON a case in ``--out``; finished cases are not run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.baselines.anp import adversarial_neuron_pruning
from benchmarks.cases import Case, case_options, draw_budget, read_cases, wanted
from benchmarks.efficacy import machine
from benchmarks.measure import final_measurement
from benchmarks.parts import NotApplicableError, divide
from benchmarks.table import interval
from modelmend.artifacts import sha256_json, write_json
from modelmend.metrics import relative_der, sample_passes
from modelmend.pruning.environment import Judge, Outcome
from modelmend.pruning.graph import GraphConfig
from modelmend.pruning.lessons import lesson
from modelmend.pruning.onp import PruningConfig, cut_clone, new_policy, prune
from modelmend.pruning.policy import PolicyConfig
from modelmend.pruning.ppo import PPOConfig, learn
from modelmend.pruning.problem import Problem
from modelmend.pruning.reward import RewardConfig
from modelmend.pruning.scorers import RuleResult
from modelmend.steps.triggers import Probed, probe_code, probed

_LOG = logging.getLogger("benchmarks.ablation")
CHECKPOINTS = (50, 100, 200, 400)
PROBE = "screen"
"""Mode of the first probe: every arm has its triggers, and it is the search that is measured."""
ANP = "ANP"
ANP_EFFORT = 0.1
"""Share of ANP's steps: about the sample passes of a whole pruning."""
PATIENT = PruningConfig(reward=RewardConfig(race_reward=0.0))
"""Arms share what was judged; racing against the best mask so far would make an outcome depend on who asked first."""


@dataclass(frozen=True)
class Arm:
    """One variant of the search; with ``folder`` it starts from the policy there."""

    ppo: PPOConfig
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    prior: bool = True
    pretrained: bool = False
    folder: Path | None = None


def arms() -> dict[str, Arm]:
    """Variants by name; ``greedy`` and ``rule`` are not searches of the agent and are run beside them."""
    long = PPOConfig(masks=CHECKPOINTS[-1], iterations=80, patience=CHECKPOINTS[-1], experience=True)
    random = long.model_copy(update={"learn": False, "iterations": 400, "returns": 0.0, "experience": False})
    return {
        "agent": Arm(long),
        "agent, pre-trained": Arm(long, pretrained=True),
        "no graph (MLP)": Arm(long, PolicyConfig(encoder="mlp", neighbours=False)),
        "no flow edges": Arm(long, graph=GraphConfig(flow=False)),
        "no prior": Arm(long, prior=False),
        "no experience": Arm(long.model_copy(update={"experience": False})),
        "no imitation": Arm(long.model_copy(update={"imitation": 0.0})),
        "no returns": Arm(long.model_copy(update={"returns": 0.0})),
        "no learning": Arm(long.model_copy(update={"learn": False, "iterations": 400})),
        "random, rule's odds": Arm(random),
        "random, even odds": Arm(random, prior=False),
    }


def shared(judge: Judge) -> Judge:
    """A judge that remembers, so that a mask costs time once over all arms (each arm still pays for it in masks)."""
    seen: dict[bytes, Outcome] = {}

    def judged(keep: Tensor) -> Outcome:
        keys = [row.numpy().tobytes() for row in keep]
        new = [i for i, key in enumerate(keys) if key not in seen]
        if new:
            outcome = judge(keep[new])
            for j, i in enumerate(new):
                seen[keys[i]] = outcome[torch.tensor([j])]
        rows = [seen[key] for key in keys]
        return Outcome(*(torch.cat([getattr(r, f) for r in rows]) for f in ("reward", "success", "drop", "whole")))

    return judged


class Diary:
    """A judge that notes what it was asked, in order, so that a search can be read off mask by mask."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.rewards: list[float] = []
        self.cuts: list[list[int]] = []

    def __call__(self, keep: Tensor) -> Outcome:
        """Ask the judge; a mask that racing dropped counts, but is never the best."""
        outcome = self._judge(keep)
        self.rewards += torch.where(outcome.whole, outcome.reward, -torch.inf).tolist()
        self.cuts += [(~row).nonzero().flatten().tolist() for row in keep]
        return outcome

    def after(self, start: int, rule: RuleResult) -> dict[str, Any]:
        """The search that began after ``start`` masks: where its best reward rose, and its best mask, rules included."""
        best, cut, curve = rule.reward, list(rule.cut), []
        for number, (reward, mask) in enumerate(zip(self.rewards[start:], self.cuts[start:], strict=True), 1):
            if number <= CHECKPOINTS[-1] and reward > best:
                best, cut = reward, mask
                curve.append([number, reward])
        return {
            "rule": rule.reward,
            "rule_cut": list(rule.cut),
            "curve": curve,
            "rewards": {str(c): reward_at(rule.reward, curve, c) for c in CHECKPOINTS},
            "masks": len(self.rewards) - start,
            "cut": cut,
        }


def reward_at(rule: float, curve: Sequence[Sequence[float]], masks: int) -> float:
    """Best reward after so many judged masks; ``curve`` holds ``(masks, reward)`` wherever it rose over the rule's."""
    return max([rule, *(reward for number, reward in curve if number <= masks)])


def pose(case: Case, budget: int, seed: int, cache: Path) -> Problem:
    """Probe the case (or read what was found before) and set the problem, triggers refreshed on the rule's mask."""
    fit, reward, _ = divide(draw_budget(case.pool, budget, seed), seed).pairs
    found = candidates(case, budget, seed, cache)
    return lesson(case.classifier().frozen(), fit, reward, found.triggers, config=PATIENT, seed=seed, again=found.again)


def candidates(case: Case, budget: int, seed: int, cache: Path) -> Probed:
    """The probe's triggers to the accused classes, kept in ``cache``, and a way to probe a pruned network again."""
    fit, reward, select = divide(draw_budget(case.pool, budget, seed), seed).pairs
    name = f"{case.name}-{budget}-{seed}"
    return probed(cache, name, case.classifier().frozen(), fit, reward, mode=PROBE, seed=seed, more=select)


def run_arm(problem: Problem, judge: Judge, arm: Arm, seed: int) -> dict[str, Any]:
    """One search; rewards at the checkpoints, and the best mask."""
    diary, started = Diary(judge), time.process_time()
    env, rules = problem.environment(prior=arm.prior, graph=arm.graph, judge=diary)
    start = env.archive.judged
    learn(
        env,
        new_policy(arm.policy, seed, pretrained=arm.pretrained, folder=arm.folder),
        arm.ppo,
        seed=seed,
        rule_reward=rules[0].reward,
    )
    return {**diary.after(start, rules[0]), "cpu_seconds": time.process_time() - started}


def greedy(problem: Problem, judge: Judge) -> dict[str, Any]:
    """Forward selection: always the single best further cut, until the masks are spent or nothing pays."""
    diary = Diary(judge)
    env, rules = problem.environment(judge=diary)
    archive, cut = env.archive, torch.zeros(len(problem.groups), dtype=torch.bool)
    start = archive.judged
    order = rules[0].score.argsort(descending=True).tolist()
    while archive.judged - start < CHECKPOINTS[-1]:
        before = archive.best()[0]
        for group in order:
            if archive.judged - start >= CHECKPOINTS[-1]:
                break
            if not cut[group]:
                row = cut.clone()
                row[group] = True
                archive.judge(row[None])
        best = archive.best()[0]
        if best.reward <= before.reward:
            break
        cut = torch.zeros(len(problem.groups), dtype=torch.bool)
        cut[list(best.cut)] = True
    return diary.after(start, rules[0])


def run_case(case: Case, budget: int, seed: int, cache: Path, names: Sequence[str]) -> dict[str, Any]:
    """All arms on one case."""
    problem, classifier = pose(case, budget, seed, cache), case.classifier()
    judge = shared(problem.judge)
    before = final_measurement(case, classifier)
    rows: dict[str, Any] = {}
    for name, arm in arms().items():
        if name in names:
            rows[name] = run_arm(problem, judge, arm, seed)
    if "greedy" in names:
        rows["greedy"] = greedy(problem, judge)
    if "rule" in names:
        some = next(iter(rows.values()))
        rows["rule"] = {**some, "rewards": dict.fromkeys(some["rewards"], some["rule"]), "cut": some["rule_cut"]}
    for row in rows.values():
        after = final_measurement(case, cut_clone(classifier, problem.groups, row["cut"]))
        row |= {"asr": after.asr, "drop": before.acc - after.acc}
    return {"case": case.name, "seed": seed, "budget": budget, "groups": len(problem.groups), "arms": rows}


def whole_arms() -> dict[str, PruningConfig]:
    """Variants of the whole pruning by name; ``best rule``: the same with no agent, thresholds of the rules only."""
    return {
        "whole": PruningConfig(),
        "experience": PruningConfig(ppo=PPOConfig(experience=True)),
        "pre-trained": PruningConfig(pretrained=True),
        "no refresh": PruningConfig(refreshes=0),
        "tied groups": PruningConfig(branches=False),
        "best rule": PruningConfig(ppo=PPOConfig(iterations=0), tidy=False),
    }


def run_whole(case: Case, budget: int, seed: int, cache: Path, names: Sequence[str]) -> dict[str, Any]:
    """The whole pruning in the variants of ``whole_arms``, and ANP on the same samples, which needs no trigger."""
    classifier = case.classifier().frozen()
    parts = divide(draw_budget(case.pool, budget, seed), seed)
    found = candidates(case, budget, seed, cache)
    before, rows = final_measurement(case, classifier), {}
    for name, config in whole_arms().items():
        if name not in names:
            continue
        started = time.process_time()
        result = prune(
            *(classifier, *parts.pairs, found.triggers),
            config=config,
            seed=seed,
            reprobe=found.again,
            probability=found.probability,
        )
        spent = time.process_time() - started
        after = final_measurement(case, result.classifier)
        rows[name] = {
            "asr": after.asr,
            "drop": before.acc - after.acc,
            "cut": list(result.candidate.cut),
            "reward": result.candidate.reward,
            "explainability": result.explanation.get("score"),
            "verified": next((r["growth"] for r in result.log if r["event"] == "verified"), None),
            "cpu_seconds": spent,
            "passes": result.passes,
        }
    if ANP in names:
        started, counted = time.process_time(), sample_passes()
        try:
            pruned = adversarial_neuron_pruning(classifier, parts, seed, effort=ANP_EFFORT)
        except NotApplicableError as error:
            _LOG.warning("%s: %s", case.name, error)
        else:
            spent, counted = time.process_time() - started, sample_passes() - counted
            after = final_measurement(case, pruned)
            rows[ANP] = {"asr": after.asr, "drop": before.acc - after.acc, "cpu_seconds": spent, "passes": counted}
    return {
        "case": case.name,
        "infected": case.infected,
        "asr": before.asr,
        "acc": before.acc,
        "arms": rows,
        "seed": seed,
    }


def table(cells: Sequence[dict[str, Any]]) -> str:
    """Means over cases and seeds, a row an arm."""
    names = list(dict.fromkeys(name for cell in cells for name in cell["arms"]))
    searched = any("rewards" in row for cell in cells for row in cell["arms"].values())
    marks = [f"reward at {c}" for c in CHECKPOINTS] if searched else []
    heads = ["arm", "n", *marks, "ASR % mean", "ASR % worst", "ACC drop mean", "ACC drop worst", "cuts"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name in names:
        rows = [cell["arms"][name] for cell in cells if name in cell["arms"]]
        rates = [100 * r["asr"] for r in rows if r["asr"] is not None] or [float("nan")]
        drops = [100 * r["drop"] for r in rows]
        rewards = (
            [f"{statistics.fmean(r['rewards'][str(c)] for r in rows):.3f}" for c in CHECKPOINTS] if searched else []
        )
        counts = [len(r["cut"]) for r in rows if "cut" in r]
        figures = [
            f"{statistics.fmean(rates):.1f}",
            f"{max(rates):.1f}",
            f"{statistics.fmean(drops):.1f}",
            f"{max(drops):.1f}",
            f"{statistics.fmean(counts):.1f}" if counts else "-",
        ]
        lines.append("| " + " | ".join([name, str(len(rows)), *rewards, *figures]) + " |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Gap:
    """How one arm compares with the best rule, by rDER, over infected cases.

    Attributes:
        arm, rule: Mean rDER of either, 0..1.
        closed: Share of the rule's gap to the ceiling (1) that the arm closes.
        low, high: 95 % interval of the difference of the arm and the rule, as ``table.interval`` has it.
        no_worse: Cases in which the arm is no worse.
        cases: All cases.
    """

    arm: float
    rule: float
    closed: float
    low: float
    high: float
    no_worse: int
    cases: int


def gap(cells: Sequence[dict[str, Any]], arm: str = "whole", rule: str = "best rule") -> Gap | None:
    """Compare an arm with the rule on the infected cases that have both; ``None`` without any."""
    both = [cell for cell in cells if cell.get("asr") is not None and {arm, rule} <= set(cell["arms"])]
    if not both:
        return None
    mine, theirs = ([_relative(cell, cell["arms"][name]) for cell in both] for name in (arm, rule))
    differences: dict[str, list[float]] = {}
    for cell, ours, other in zip(both, mine, theirs, strict=True):
        differences.setdefault(cell["case"], []).append(ours - other)
    _, low, high = interval(differences)
    mean, ruled = statistics.fmean(mine), statistics.fmean(theirs)
    closed = (mean - ruled) / (1 - ruled) if ruled < 1 else 0.0
    no_worse = sum(ours >= other - 1e-9 for ours, other in zip(mine, theirs, strict=True))
    return Gap(mean, ruled, closed, low, high, no_worse, len(both))


def _relative(cell: dict[str, Any], row: dict[str, Any]) -> float:
    return relative_der(cell["acc"], cell["acc"] - row["drop"], cell["asr"], row["asr"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    everything = [*arms(), "greedy", "rule", *whole_arms(), ANP]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ablation", description=__doc__)
    case_options(parser, suite="small", budget=500)
    parser.add_argument("--arms", default=",".join(everything), help="separated by ';'")
    parser.add_argument("--end-to-end", action="store_true")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(".work/ablation"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    logging.getLogger("modelmend.redteam.sealed").setLevel(logging.WARNING)
    names = (
        options.arms.split(";")
        if ";" in options.arms
        else everything
        if options.arms == ",".join(everything)
        else [options.arms]
    )
    settings = list(whole_arms().values()) if options.end_to_end else [PATIENT]
    configs: list[Any] = [config.model_dump(mode="json") for config in settings]
    configs += [] if options.end_to_end else [repr(arms())]
    configs.append([probe_code(), ANP_EFFORT if ANP in names else None])
    made_by = sha256_json([sorted(names), configs]).removeprefix("sha256:")[:6]
    kind, one = ("whole", run_whole) if options.end_to_end else ("search", run_case)
    cells = []
    for case in read_cases(options.suite, options.data, options.zoo):
        if not wanted(case, options.only) or not (options.end_to_end or case.infected):
            continue
        for seed in range(options.seeds):
            path = options.out / kind / f"{case.name}-{options.budget}-{seed}-{made_by}.json"
            if not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(
                    path, one(case, options.budget, seed, options.out / "triggers", names) | {"machine": machine()}
                )
            cells.append(json.loads(path.read_text(encoding="utf-8")))
            print(cells[-1]["case"], {n: (r["asr"], r["drop"]) for n, r in cells[-1]["arms"].items()}, flush=True)
    infected = [cell for cell in cells if cell.get("infected", True)]
    print(table(infected) if infected else "no infected model")
    for rule in ("best rule", ANP):
        if (found := gap(infected, rule=rule)) is None:
            continue
        print(
            f"rDER {found.arm:.3f}, {rule} {found.rule:.3f}: {100 * found.closed:.0f} % of its gap closed, difference "
            f"{found.low:+.3f} .. {found.high:+.3f} (95 %), no worse in {found.no_worse} of {found.cases}"
        )
    if clean := [cell for cell in cells if not cell.get("infected", True)]:
        print("clean models\n" + table(clean))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
