"""Make the shipped policy: ``python -m benchmarks.pretraining`` (a quarter of an hour on one core).

It learns on small networks trained here on 8x8 digits (two architectures, several attacks and seeds), so that every
model of the zoo stays unseen: other data, other widths and depths, attacks among them that it has never met.
``modelmend policy train`` does the same on the models of a zoo.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe.run import probe
from modelmend.pruning.environment import CutEnvironment
from modelmend.pruning.lessons import lesson
from modelmend.pruning.onp import PruningConfig, new_policy
from modelmend.pruning.pretrain import LEARNER, pretrain, save_policy
from modelmend.redteam.digits import digits_recipe, digits_split
from modelmend.redteam.train import train

ATTACKS = ("badnets", "blended", "sig", "lf")
ARCHITECTURES = ("cnn_small", "resnet8")


def environment(attack: str, arch: str, seed: int) -> CutEnvironment | None:
    """Train a network, probe it and pose its search; ``None`` when the attack did not take."""
    split = digits_split(seed)
    recipe = digits_recipe(seed, attack).model_copy(update={"arch": arch, "epochs": 30 if arch == "cnn_small" else 12})
    infected = train(recipe, split.x_train, split.y_train, split.x_test, split.y_test)
    if infected.asr is None or infected.asr < 0.8:
        return None
    classifier = Classifier(export_module(infected.module.eval(), (1, 8, 8)), recipe.preprocessing, 10).frozen()
    fit, reward = ((split.x_clean[i : i + 100], split.y_clean[i : i + 100]) for i in (0, 100))
    found = probe(classifier, fit, reward, mode="screen", seed=seed)
    if not found.triggers:
        return None
    return lesson(classifier, fit, reward, found.triggers, seed=seed).environment()[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretraining", description=__doc__)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path("src/modelmend/pruning/weights"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    started, environments, used, seed = time.process_time(), [], [], 100
    while len(environments) < options.models:
        attack, arch = ATTACKS[seed % len(ATTACKS)], ARCHITECTURES[seed // len(ATTACKS) % len(ARCHITECTURES)]
        made = environment(attack, arch, seed)
        if made is not None:
            environments.append(made)
            used.append({"dataset": "digits", "attack": attack, "arch": arch, "seed": seed, "groups": made.groups})
            print(used[-1], round(time.process_time() - started), "s", flush=True)
        seed += 1
    policy = new_policy(PruningConfig().policy, 0)
    rows = pretrain(environments, policy, LEARNER, rounds=options.rounds, seed=0)
    for row in rows[:: max(1, len(rows) // 8)]:
        print(row["round"], [round(v, 2) for v in row["mean"]], [round(v, 2) for v in row["best"]], flush=True)
    recipe = {
        "data": "digits 8x8",
        "models": used,
        "rounds": options.rounds,
        "cpu_seconds": round(time.process_time() - started),
    }
    save_policy(options.out, policy, {**recipe, "first": rows[0], "last": rows[-1]})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
