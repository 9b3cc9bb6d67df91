"""Transfer: one policy learned on many networks, so that the search on the next one starts well.

Attributes are standardised per layer and the prior is a rank, so the same weights read networks of any width and depth.
Which networks a shipped policy has seen is in the JSON beside its weights; ``benchmarks/pretraining.py`` makes it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from modelmend.artifacts import write_json
from modelmend.errors import InputError
from modelmend.progress import Progress, silent
from modelmend.pruning.attributes import NAMES
from modelmend.pruning.environment import CutEnvironment
from modelmend.pruning.graph import EDGE_FEATURES
from modelmend.pruning.policy import NeuronPolicy, PolicyConfig
from modelmend.pruning.ppo import PPOConfig, Trajectory, search, update

SHIPPED = files("modelmend.pruning") / "weights"


def pretrain(
    environments: Sequence[CutEnvironment],
    policy: NeuronPolicy,
    config: PPOConfig,
    *,
    rounds: int,
    seed: int,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Train one policy on several networks in turn.

    Args:
        environments: One a network; their archives remember, so that a mask is judged once.
        policy: Trained in place.
        config: Settings; ``iterations`` and ``masks`` are not read.
        rounds: Turns of every network.
        seed: Of the sampled actions.
        progress: Called after every turn.

    Returns:
        One row a round: mean and best reward of each network.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=1e-5)
    elites: list[list[Trajectory]] = [[] for _ in environments]
    rows = []
    for number in range(rounds):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - 0.9 * number / rounds)
        means = []
        for i, env in enumerate(environments):
            rollout, found = search(env, policy, config.searches, generator, config)
            elites[i] = sorted([*elites[i], *found], key=lambda t: -t.reward)[: config.elite]
            update(policy, env, rollout, [t for t in elites[i] if t.reward > 0], optimizer, config)
            means.append(sum(t.reward for t in found) / len(found))
            progress("pre-training", number * len(environments) + i + 1, rounds * len(environments))
        rows.append({"round": number, "mean": means, "best": [env.archive.best()[0].reward for env in environments]})
    return rows


def save_policy(folder: Path, policy: NeuronPolicy, recipe: dict[str, Any]) -> None:
    """Write weights and what they were made from."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.detach().contiguous() for name, value in policy.state_dict().items()},
        folder / "policy.safetensors",
    )
    about = {"config": policy.config.model_dump(), "attributes": list(NAMES), "edge_features": EDGE_FEATURES}
    write_json(folder / "policy.json", {**about, "recipe": recipe})


def load_policy(folder: Path | None = None) -> NeuronPolicy:
    """The shipped policy, or one that ``save_policy`` wrote.

    Raises:
        InputError: there is none, or it was made for other attributes.
    """
    if folder is None:
        with as_file(SHIPPED) as shipped:
            return load_policy(shipped)
    try:
        about = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
        if about["attributes"] != list(NAMES) or about["edge_features"] != EDGE_FEATURES:
            raise InputError("this policy reads other attributes", where=folder, fix="python -m benchmarks.pretraining")
        policy = NeuronPolicy(len(NAMES), EDGE_FEATURES, PolicyConfig.model_validate(about["config"]))
        policy.load_state_dict(load_file(folder / "policy.safetensors"))
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(
            f"no usable policy here: {error}", where=folder, fix="python -m benchmarks.pretraining"
        ) from error
    return policy
