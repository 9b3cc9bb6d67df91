"""Transfer: one policy learned on many networks, so that the search on the next one starts well.

Attributes are standardised per layer and the prior is a rank, so the same weights read networks of any width and depth.
Which networks a policy has seen is in the JSON beside its weights: the recipe. ``modelmend policy train`` makes one from a
zoo; the shipped one is of the calibration models in ``benchmarks/zoo`` without those of WaNet (its JSON says how).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from modelmend.artifacts import write_json
from modelmend.errors import InputError
from modelmend.progress import Progress, silent
from modelmend.pruning.environment import CutEnvironment
from modelmend.pruning.graph import EDGE_FEATURES, NODE_ATTRIBUTES
from modelmend.pruning.policy import NeuronPolicy, PolicyConfig
from modelmend.pruning.ppo import PPOConfig, Trajectory, search, update

SHIPPED = files("modelmend.pruning") / "weights"
WEIGHTS, ABOUT = "policy.safetensors", "policy.json"
LEARNER = PPOConfig(imitation=0.5, returns=0.0, experience=True)
"""The learner's settings when a policy learns on many networks: it imitates its best searches more, and all its searches
begin at the uncut network, since that is what it has to know of a network that it has never seen."""
EPISODE = 6
"""Rounds after which a network is met anew: what its searches have found out is forgotten, as on the next network."""
FIX = "train one with `modelmend policy train`"


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
            if number % EPISODE == 0:
                env.archive.meet()
            rollout, found = search(env, policy, config.searches, generator, config)
            elites[i] = sorted([*elites[i], *found], key=lambda t: -t.reward)[: config.elite]
            update(policy, env, rollout, [t for t in elites[i] if t.reward > 0], optimizer, config)
            means.append(sum(t.reward for t in found) / len(found))
            progress("pre-training", number * len(environments) + i + 1, rounds * len(environments))
        rows.append({"round": number, "mean": means, "best": [env.archive.best()[0].reward for env in environments]})
    return rows


def rehearse(
    environment: CutEnvironment, policy: NeuronPolicy, config: PPOConfig, *, searches: int = 16, seed: int
) -> float:
    """Mean reward of the best sets that a policy's searches reach, at first sight, without a gradient step.

    Args:
        environment: The network's search.
        policy: Read only.
        config: Settings of the search.
        searches: How many.
        seed: Of the sampled actions.
    """
    known, told = environment.archive.meet(), environment.graph.x.clone()
    found = search(environment, policy, searches, torch.Generator().manual_seed(seed), config)[1]
    environment.archive.remember(known)
    environment.graph.x.copy_(told)
    return sum(t.reward for t in found) / len(found)


def save_policy(folder: Path, policy: NeuronPolicy, recipe: dict[str, Any]) -> None:
    """Write weights and what they were made from."""
    folder.mkdir(parents=True, exist_ok=True)
    weights, record = folder / f"{WEIGHTS}.part", folder / f"{ABOUT}.part"
    save_file({name: value.detach().contiguous() for name, value in policy.state_dict().items()}, weights)
    about = {"config": policy.config.model_dump(), "attributes": list(NODE_ATTRIBUTES), "edge_features": EDGE_FEATURES}
    write_json(record, {**about, "recipe": recipe})
    weights.replace(folder / WEIGHTS)
    record.replace(folder / ABOUT)


def load_policy(folder: Path | None = None) -> NeuronPolicy:
    """The shipped policy, or one that ``save_policy`` wrote.

    Raises:
        InputError: there is none, it was made for other attributes, or its weights are unusable.
    """
    if folder is None:
        with as_file(SHIPPED) as shipped:
            return load_policy(shipped)
    try:
        about = read_about(folder)
        policy = NeuronPolicy(len(NODE_ATTRIBUTES), EDGE_FEATURES, PolicyConfig.model_validate(about["config"]))
        policy.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"no usable policy here: {error}", where=folder, field="policy", fix=FIX) from error
    if not all(bool(value.isfinite().all()) for value in policy.state_dict().values()):
        raise InputError("weights of this policy are not finite", where=folder / WEIGHTS, field="policy", fix=FIX)
    return policy


def read_about(folder: Path) -> dict[str, Any]:
    """Content of ``policy.json``: ``config``, ``attributes``, ``edge_features`` and the ``recipe``.

    Raises:
        InputError: there is none, or the policy was made for other attributes.
    """
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"no policy here: {error}", where=path, field="policy", fix=FIX) from error
    if not isinstance(about, dict) or not {"config", "attributes", "edge_features", "recipe"} <= about.keys():
        raise InputError("this is no policy's record", where=path, field="policy", fix=FIX)
    if about["attributes"] != list(NODE_ATTRIBUTES) or about["edge_features"] != EDGE_FEATURES:
        raise InputError("this policy reads other attributes", where=path, field="attributes", fix=FIX)
    return about
