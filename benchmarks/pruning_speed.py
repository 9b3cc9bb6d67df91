"""How much faster masks are judged than by the honest way: ``python -m benchmarks.pruning_speed --data DIR --only NAME``.

The masks are those that a search really judged, in its order. The honest way copies the network, zeroes the groups'
weights and runs one eval-mode forward pass over the same samples at its best batch size. Both sides count CPU seconds on
one thread, rewards must agree to 1e-5. *Exact*: every mask judged to the end. *Racing*: the same search with masks that are
hopeless or far behind dropped early, against the honest cost of the masks that the patient search needs for the same
final reward.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ablation import candidates
from benchmarks.cases import Case, case_options, draw_budget, read_cases, wanted
from benchmarks.efficacy import machine
from benchmarks.parts import divide
from modelmend.artifacts import write_json
from modelmend.pruning.attributes import measure
from modelmend.pruning.connections import connections
from modelmend.pruning.environment import Archive, CutEnvironment, Outcome
from modelmend.pruning.graph import build_graph, rank_prior
from modelmend.pruning.judge import MaskJudge, joined
from modelmend.pruning.onp import PruningConfig, cut_clone, new_policy, nodes, strengthened, worth_following
from modelmend.pruning.ppo import PPOConfig, learn
from modelmend.pruning.scorers import Context, try_rules

BATCHES = (16, 32, 64, 128, 256)


class Recorder:
    """A judge that writes down what it was asked, in which batches."""

    def __init__(self, judge: MaskJudge, *, patient: bool) -> None:
        self.judge = judge
        self._ask = judge.patiently if patient else judge
        self.asked: list[Tensor] = []
        self.seconds = 0.0
        self.marks: list[tuple[int, float]] = []

    def __call__(self, keep: Tensor) -> Outcome:
        """Judge and remember."""
        self.asked.append(keep.clone())
        started = time.process_time()
        outcome = self._ask(keep)
        self.seconds += time.process_time() - started
        self.marks.append((sum(map(len, self.asked)), self.seconds))
        return outcome


def honest(case: Case, x: Tensor, cut: tuple[int, ...], groups: list[Any], batch: int) -> tuple[Tensor, float]:
    """Logits of one mask by copying, zeroing and running; and the CPU seconds that it took."""
    classifier = case.classifier().frozen()
    started = time.process_time()
    with torch.no_grad():
        pruned = cut_clone(classifier, groups, cut)
        logits = torch.cat([pruned(part) for part in torch.split(x, batch)])
    return logits, time.process_time() - started


def run(case: Case, budget: int, seed: int, cache: Path, sample: int) -> dict[str, Any]:
    """Measure one case; ``sample`` masks are also judged the honest way."""
    classifier = case.classifier().frozen()
    fit, reward, _ = divide(draw_budget(case.pool, budget, seed), seed).pairs
    config = PruningConfig()
    found = candidates(case, budget, seed, cache)
    triggers = strengthened(worth_following(found.triggers, fit[0]), config)
    groups = nodes(classifier, case.input_shape, config)
    wiring = connections(classifier.graph, groups)
    attributes = measure(classifier, groups, wiring, fit, triggers)
    limit = min(config.max_cuts, len(groups) // 3)

    def judge() -> MaskJudge:
        return MaskJudge(classifier, groups, joined(fit, reward), reward, triggers, config.reward, seed=seed)

    def search(recorder: Recorder) -> list[tuple[int, float]]:
        """One search; after which number of masks it held which best reward."""
        archive = Archive(recorder)
        rules = try_rules(Context(attributes, wiring), archive, limit)
        graph = build_graph(attributes.x, rank_prior(rules[0].score), wiring)
        ppo = PPOConfig(masks=300, iterations=60, patience=300)
        rows = learn(CutEnvironment(graph, archive, limit=limit), new_policy(config.policy, seed), ppo, seed=seed)
        at_rules = archive.judged - max((r["masks"] for r in rows if r["event"] == "iteration"), default=0)
        return [(at_rules + r["masks"], r["best_reward"]) for r in rows if r["event"] == "iteration"]

    started = time.process_time()
    patient = Recorder(judge(), patient=True)
    built = time.process_time() - started
    patient_steps = search(patient)
    racing = Recorder(judge(), patient=False)
    racing_steps = search(racing)
    masks = torch.cat(patient.asked)

    x = patient.judge.x
    cuts = [tuple((~row).nonzero().flatten().tolist()) for row in masks]
    batch = min(BATCHES, key=lambda b: min(honest(case, x, cuts[-1], groups, b)[1] for _ in range(2)))
    chosen = torch.linspace(0, len(masks) - 1, min(sample, len(masks))).long().tolist()
    seconds, gap = [], 0.0
    for i in chosen:
        logits, spent = honest(case, x, cuts[i], groups, batch)
        seconds.append(spent)
        by_hand = patient.judge.outcome_of(logits[None], masks[i : i + 1])
        gap = max(gap, abs(float(by_hand.reward - patient.judge.patiently(masks[i : i + 1]).reward)))
    each = sum(seconds) / len(seconds)
    final = min(patient_steps[-1][1], racing_steps[-1][1]) - 1e-6
    needed = next(m for m, r in patient_steps if r >= final)
    raced = next(m for m, r in racing_steps if r >= final)
    racing_cost = built + next(seconds for masks_asked, seconds in racing.marks if masks_asked >= raced)
    return {
        "case": case.name,
        "samples": patient.judge.samples,
        "masks": len(masks),
        "honest_batch": batch,
        "honest_ms_a_mask": 1000 * each,
        "exact_ms_a_mask": 1000 * (built + patient.seconds) / len(masks),
        "exact_speedup": each * len(masks) / (built + patient.seconds),
        "reward_gap": gap,
        "final_reward": [patient_steps[-1][1], racing_steps[-1][1]],
        "racing_speedup": each * needed / racing_cost,
        "racing_ms_a_mask": 1000 * (built + racing.seconds) / len(torch.cat(racing.asked)),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pruning_speed", description=__doc__)
    case_options(parser, suite="small", budget=500)
    parser.add_argument("--sample", type=int, default=40, help="masks that are also judged the honest way")
    parser.add_argument("--out", type=Path, default=Path(".work/ablation"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    for case in read_cases(options.suite, options.data, options.zoo):
        if case.infected and wanted(case, options.only):
            rows.append(run(case, options.budget, 0, options.out / "triggers", options.sample))
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    write_json(options.out / "speed.json", {"machine": machine(), "rows": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
