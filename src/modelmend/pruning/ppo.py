"""Proximal policy optimisation (Schulman et al., arXiv 1707.06347) for cutting groups; reads top to bottom.

Differences from the textbook, all ours: states of many searches share one graph embedding; the step rewards telescope
to the reward of the final set; and beside the on-policy loss the agent imitates the best searches it has made
(after self-imitation learning, Oh et al., arXiv 1806.05635), because a judged mask costs more than a gradient step.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from modelmend.progress import Progress, silent
from modelmend.pruning.environment import CutEnvironment
from modelmend.pruning.policy import NeuronPolicy, State
from modelmend.records import Record

WORTH = 0.002
"""Gain in reward that counts as something better: one cut's price."""
SHIFT = 1.3
"""Factor by which the price of certainty changes in an iteration."""
MOST = 0.5
"""Largest price of certainty."""


class PPOConfig(Record):
    """Every setting of the learner."""

    searches: int = 16
    """Searches side by side in one iteration; their masks are judged in one batch."""
    iterations: int = 240
    """Rounds of searching and learning."""
    masks: int = 2400
    """Stop after this many different masks were judged, whatever the round ..."""
    patience: int = 1000
    """... or when so many brought nothing better: most searches end here, an entangled backdoor takes longer."""
    learning_rate: float = 3e-3
    """Adam's, annealed linearly to a tenth."""
    epochs: int = 4
    """Passes over the states of one iteration."""
    gae_lambda: float = 0.95
    """Bias against variance of the advantage; rewards are not discounted."""
    clip: float = 0.2
    """Largest change of an action's probability ratio that is rewarded."""
    entropy: float = 0.03
    """Least price of certainty, keeps the agent looking around."""
    novelty: float = 0.3
    """The price of certainty grows while a smaller share of the sets that the searches pass through is new, and falls
    back after: an agent that has settled before the masks are spent starts to look around again."""
    value: float = 0.5
    """Weight of the critic's squared error."""
    imitation: float = 0.3
    """Weight of imitating the best searches so far; 0 = plain PPO."""
    elite: int = 4
    """How many best searches are imitated, and best sets searches begin at."""
    returns: float = 0.25
    """Share of the searches that begin at one of the ``elite`` best sets so far (after Go-Explore, arXiv 1901.10995) ..."""
    undone: float = 0.3
    """... with at least one of its cuts, and this share of the others, put back. Only what the agent found from the
    uncut network is imitated."""
    experience: bool = False
    """Before every iteration the agent is told what the search has found out about each group. Always so for a policy
    that learned on other networks; for one from scratch it is quicker and, to the end, no better."""
    gradient_norm: float = 0.5
    """Gradients are scaled down to this norm."""
    target_kl: float = 0.05
    """An iteration's epochs end when the policy has moved this far."""
    learn: bool = True
    """False: never take a gradient step (the ablation: sample the untrained policy; ``experience`` still leads it to
    what paid, ``returns`` to good sets)."""


@dataclass(frozen=True)
class Rollout:
    """Steps of finished searches, flattened: ``S`` steps."""

    states: State
    legal: Tensor
    action: Tensor
    log_prob: Tensor
    value: Tensor
    advantage: Tensor
    returns: Tensor


@dataclass(frozen=True)
class Trajectory:
    """One search up to its best set, as an example to imitate."""

    reward: float
    states: State
    legal: Tensor
    action: Tensor


def masked_log_probs(logits: Tensor, legal: Tensor) -> Tensor:
    """Log probabilities ``(B, A)`` with illegal actions at -inf."""
    return functional.log_softmax(logits.masked_fill(~legal, -torch.inf), 1)


@torch.no_grad()
def search(
    env: CutEnvironment, policy: NeuronPolicy, searches: int, generator: torch.Generator, config: PPOConfig
) -> tuple[Rollout, list[Trajectory]]:
    """Run searches with the current policy to their end.

    Returns:
        All steps with generalised advantages, and each search cut off at its best set (and told to stop there).
    """
    policy.eval()
    if config.experience:
        env.recall()
    embedding = policy.encode(env.graph.x, env.graph.edge_index, env.graph.edge_attr)
    state = env.begin(_beginnings(env, searches, generator, config))
    steps: list[tuple[State, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]] = []
    whole = [env.whole()]
    done = torch.zeros(searches, dtype=torch.bool)
    while not bool(done.all()):
        legal = env.legal()
        logits, value = policy.judge(embedding, env.graph, state)
        log_probs = masked_log_probs(logits, legal)
        action = torch.multinomial(log_probs.exp(), 1, generator=generator).squeeze(1)
        alive = ~done
        following, reward, done = env.step(action)
        chosen = log_probs.gather(1, action[:, None]).squeeze(1)
        steps.append((state, legal, action, chosen, value, reward, alive))
        whole.append(env.whole())
        state = following

    advantage, running = [torch.empty(0)] * len(steps), torch.zeros(searches)
    next_value = torch.zeros(searches)
    for t in reversed(range(len(steps))):
        *_, value, reward, alive = steps[t]
        delta = reward + next_value - value
        running = torch.where(alive, delta + config.gae_lambda * running, torch.zeros_like(delta))
        advantage[t] = running
        next_value = torch.where(alive, value, torch.zeros_like(value))

    alive = torch.stack([s[6] for s in steps]).flatten()
    flat = State.cat([s[0] for s in steps])[alive]
    legal, action, log_prob, value = (torch.cat([s[i] for s in steps])[alive] for i in (1, 2, 3, 4))  # type: ignore[misc]
    adv = torch.cat(advantage)[alive]
    rollout = Rollout(flat, legal, action, log_prob, value, adv, adv + value)
    return rollout, _trajectories(env, steps, torch.stack(whole))


def _beginnings(env: CutEnvironment, searches: int, generator: torch.Generator, config: PPOConfig) -> Tensor:
    """Where searches begin, bool ``(B, G)``: at the uncut network, or at a good set with at least one cut undone."""
    cut = torch.zeros(searches, env.groups, dtype=torch.bool)
    good = [c for c in env.archive.best(config.elite) if c.cut and c.reward > 0]
    for b in range(round(config.returns * searches) if good else 0):
        chosen = good[int(torch.randint(len(good), (1,), generator=generator))]
        left = torch.rand(len(chosen.cut), generator=generator) >= config.undone
        left[int(torch.randint(len(left), (1,), generator=generator))] = False
        cut[b, torch.tensor(chosen.cut)[left]] = True
    return cut


def _trajectories(env: CutEnvironment, steps: list[Any], whole: Tensor) -> list[Trajectory]:
    """Each search up to its best set among the wholly judged ``(T + 1, B)``, followed by *stop*."""
    rewards = torch.stack([s[0].context[:, -1] for s in steps] + [env.state().context[:, -1]])
    rewards = rewards.masked_fill(~whole, -torch.inf)
    found = []
    for b in range(rewards.shape[1]):
        length = int(rewards[:, b].argmax())
        rows = torch.tensor([b])
        states = [s[0][rows] for s in steps[:length]]
        legal = [s[1][rows] for s in steps[:length]]
        action = [s[2][rows] for s in steps[:length]]
        if length < len(steps):
            states.append(steps[length][0][rows])
            legal.append(steps[length][1][rows])
            action.append(torch.tensor([env.groups]))
        found.append(Trajectory(float(rewards[length, b]), State.cat(states), torch.cat(legal), torch.cat(action)))
    return found


def update(
    policy: NeuronPolicy,
    env: CutEnvironment,
    rollout: Rollout,
    elite: list[Trajectory],
    optimizer: torch.optim.Optimizer,
    config: PPOConfig,
    price: float | None = None,
) -> dict[str, float]:
    """Clipped policy loss, value loss, entropy bonus, imitation of the elite; returns their last values.

    ``price`` is that of certainty; ``None``: the settings' least one.
    """
    price = config.entropy if price is None else price
    policy.train()
    adv = rollout.advantage
    adv = (adv - adv.mean()) / (adv.std() + 1e-6) if len(adv) > 1 else adv
    figures: dict[str, float] = {}
    examples = elite if config.imitation else []
    states, own = State.cat([rollout.states, *(t.states for t in examples)]), len(rollout.action)
    for _ in range(config.epochs):
        logits, value = policy(env.graph, states)
        log_probs = masked_log_probs(logits[:own], rollout.legal)
        chosen = log_probs.gather(1, rollout.action[:, None]).squeeze(1)
        ratio = (chosen - rollout.log_prob).exp()
        surrogate = torch.minimum(ratio * adv, ratio.clamp(1 - config.clip, 1 + config.clip) * adv)
        entropy = -(log_probs.exp() * log_probs.masked_fill(~rollout.legal, 0)).sum(1).mean()
        value_loss = functional.mse_loss(value[:own], rollout.returns)
        loss = -surrogate.mean() + config.value * value_loss - price * entropy
        if examples:
            imitated = masked_log_probs(logits[own:], torch.cat([t.legal for t in examples]))
            action = torch.cat([t.action for t in examples])
            loss = loss - config.imitation * imitated.gather(1, action[:, None]).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), config.gradient_norm)
        optimizer.step()
        kl = float((ratio - 1 - ratio.log()).mean().detach())
        figures = {"entropy": float(entropy.detach()), "value_loss": float(value_loss.detach()), "kl": kl}
        if kl > config.target_kl:
            break
    return figures


def learn(
    env: CutEnvironment,
    policy: NeuronPolicy,
    config: PPOConfig,
    *,
    seed: int,
    rule_reward: float = 0.0,
    deadline: float | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Search and learn until the masks, the iterations or the time are spent.

    Args:
        env: The searches; its archive keeps every mask that was judged.
        policy: Trained in place.
        config: Settings.
        seed: Of the sampled actions.
        rule_reward: Best reward of a single-score rule; the log shows the gain over it.
        deadline: ``time.monotonic()`` after which no new iteration starts. A safety net: a run that hits it depends on
            the machine's speed, and the log says so.
        progress: Called once an iteration.

    Returns:
        One log row an iteration.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=config.learning_rate, eps=1e-5)
    elite: list[Trajectory] = []
    rows: list[dict[str, Any]] = []
    start = since = env.archive.judged
    record, price = env.archive.best()[0].reward, config.entropy
    for iteration in range(config.iterations):
        spent = env.archive.judged - start
        late = deadline is not None and time.monotonic() > deadline
        stale = env.archive.judged - since >= config.patience
        if spent >= config.masks or stale or late:
            reason = "time" if late else "masks" if spent >= config.masks else "patience"
            rows.append({"event": "stopped", "reason": reason, "iteration": iteration})
            break
        done = max(iteration / config.iterations, spent / config.masks)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - 0.9 * done)
        rollout, found = search(env, policy, config.searches, generator, config)
        new = (env.archive.judged - start - spent) / max(1, int((rollout.action < env.groups).sum()))
        found = [t for t in found if not bool(t.states.cut[0].any())]
        elite = sorted(elite + found, key=lambda t: -t.reward)
        elite = _distinct(elite)[: config.elite]
        figures = update(policy, env, rollout, elite, optimizer, config, price) if config.learn else {}
        paid = price
        price = min(price * SHIFT, MOST) if new < config.novelty else max(price / SHIFT, config.entropy)
        best = env.archive.best()[0]
        if best.reward > record + WORTH:
            record, since = best.reward, env.archive.judged
        rows.append(
            {
                "event": "iteration",
                "iteration": iteration,
                "masks": env.archive.judged - start,
                "mean_reward": float(torch.tensor([t.reward for t in found]).mean()),
                "best_reward": best.reward,
                "best_cut": list(best.cut),
                "gain_over_rule": best.reward - rule_reward,
                "steps": len(rollout.action),
                "new": new,
                "certainty_price": paid,
                "prior_weight": float(policy.prior_weight.detach()),
                **figures,
            }
        )
        progress("learning which groups to cut", iteration + 1, config.iterations)
    return rows


def _distinct(trajectories: list[Trajectory]) -> list[Trajectory]:
    seen: set[bytes] = set()
    kept = []
    for t in trajectories:
        reached, last = t.states.cut[-1].clone(), int(t.action[-1])
        if last < len(reached):
            reached[last] = True
        key = reached.numpy().tobytes()
        if key not in seen and t.reward > 0:
            seen.add(key)
            kept.append(t)
    return kept
