"""Optimized neuron pruning: find the groups that carry the backdoor, cut them on a clone, say why.

After Li, Yu and Yi (arXiv 2405.17746): neurons as a graph, a graph neural network, a reinforcement-learning agent that
learns which to prune. Open in the paper and ours here: one graph for the whole network, the reward without a trigger,
PPO with sequential cuts, the rule as prior, refreshed triggers, the final choice with samples that the search never saw.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modelmend.metrics import sample_passes
from modelmend.model.branches import KIND as BRANCH
from modelmend.model.branches import split_branches
from modelmend.model.groups import Group, find_groups, zero_groups
from modelmend.probe.weights import pair_of, pair_weights
from modelmend.progress import Progress, silent
from modelmend.pruning.attributes import measure
from modelmend.pruning.connections import Connections, connections
from modelmend.pruning.environment import Archive, Candidate
from modelmend.pruning.explanation import Evidence, explain
from modelmend.pruning.graph import EDGE_FEATURES, NODE_ATTRIBUTES, GraphConfig
from modelmend.pruning.judge import Labelled, MaskJudge, joined
from modelmend.pruning.policy import NeuronPolicy, PolicyConfig
from modelmend.pruning.ppo import PPOConfig, learn
from modelmend.pruning.pretrain import load_policy
from modelmend.pruning.problem import Problem, longest
from modelmend.pruning.refresh import Reprobe, Scaled, class_growth, exaggerated, growth, held_to_size
from modelmend.pruning.reward import RewardConfig
from modelmend.pruning.scorers import Context, RuleResult
from modelmend.records import Record

if TYPE_CHECKING:
    from torch_geometric.data import Data

    from modelmend.model.classifier import Classifier
    from modelmend.probe.trigger import Trigger


NEGLIGIBLE = 0.05
"""Triggers of a smaller share of a family's even weight are not followed: their class needs a far larger change than
another, or another family is far ahead in seeing it."""


class PruningConfig(Record):
    """Settings of the whole stage."""

    reward: RewardConfig = RewardConfig()
    """What a mask is worth; holds the accuracy budget (1.5 points)."""
    ppo: PPOConfig = PPOConfig()
    """The learner; holds the number of masks to judge in a round."""
    policy: PolicyConfig = PolicyConfig()
    """Form of the network."""
    graph: GraphConfig = GraphConfig()
    """Which groups are linked."""
    branches: bool = True
    """Take the channels of a residual stream apart by the layers that add to them; False: as tied groups."""
    max_cuts: int = 24
    """Longest search."""
    layer_share: float = 0.5
    """At most this share of a layer is cut."""
    refreshes: int = 3
    """How often the pruned network is probed again, the triggers found there joining the reward."""
    later: float = 0.5
    """Share of the learner's masks, iterations and patience in the rounds after the first, which begin with the best masks found."""
    exaggeration: float = 1.5
    """Every trigger is also applied so many times as strong; 1: it is not."""
    settled: float = 0.1
    """No further round when fresh triggers to the class that weighs most succeed less than this on the best mask."""
    least_reward: float = 0.1
    """Cut nothing, and search no further, when the best mask of a round is worth less than this: in a small network the
    backdoor can sit in groups that every class needs."""
    least_fall: float = 0.25
    """Cut nothing when no class's probe success, fresh triggers included, exaggerated ones not, falls by this much ..."""
    least_growth: float = 1.15
    """... or when no class's smallest trigger became larger by this factor, the families weighed by their leads."""
    doubtful_reward: float = 0.5
    """``least_reward`` of a network that is probably clean: to cut what carries a class's own evidence is worth
    something, too, where the class has few samples."""
    doubtful_growth: float = 1.4
    """``least_growth`` of a network that is probably clean."""
    candidates: int = 12
    """Best masks among which the final choice is made, on all samples; and the best of each number of cuts up to this."""
    pretrained: bool = False
    """Start from the shipped policy, not from an untrained one; ``policy`` is then not read."""
    policy_dir: Path | None = None
    """Start from the policy that ``modelmend policy train`` wrote there; ``policy`` is then not read."""
    rules: tuple[str, ...] | None = None
    """Scorers to try; ``None``: all."""
    prior: bool = True
    """Start from the best rule; False: from nothing (the ablation)."""
    tidy: bool = True
    """Try to put cuts back at the end of a round."""
    explain: bool = True
    """Draw up the evidence of every cut."""
    seconds: float = 900.0
    """No new round of learning after this long: a safety net, since a run that hits it is not reproducible."""


@dataclass(frozen=True)
class PruneResult:
    """What pruning did.

    Attributes:
        classifier: A clone with the cut groups' weights set to zero; the suspect itself when nothing was cut: still a
        clone. cut: The groups that were cut, in the order of their index. groups: All prunable groups. candidate: The
        chosen mask with its figures on the reward split. rules: How every rule did at its best threshold in the last
        round; best first. log: One row an event, JSON without NaN. explanation: Evidence card of every cut and the
        explainability score (see ``explanation``). seconds: Wall time. passes: Sample passes. evidence: What the
        explanation was drawn from; ``None`` when there was no search. branches: ``groups`` are those of
        ``split_branches``.
    """

    classifier: Classifier
    cut: list[Group]
    groups: list[Group]
    candidate: Candidate
    rules: list[RuleResult]
    log: list[dict[str, Any]]
    explanation: dict[str, Any]
    seconds: float
    passes: float
    evidence: Evidence | None = None
    branches: bool = False

    def record(self) -> dict[str, Any]:
        """Content of ``pruning.json``."""
        return {
            "cut": [{"index": g.index, "layer": g.layer, "kind": g.kind, "channels": g.channels} for g in self.cut],
            "groups_cut": len(self.cut),
            "groups_total": len(self.groups),
            "branches": self.branches,
            "reward": self.candidate.reward,
            "probe_success_left": list(self.candidate.success),
            "accuracy_drop": self.candidate.drop,
            "rules": [{"name": r.name, "reward": r.reward, "cuts": len(r.cut)} for r in self.rules],
            "explanation": self.explanation,
            "seconds": self.seconds,
            "passes": self.passes,
        }


@dataclass
class Round:
    """One round of the search against a fixed set of triggers."""

    judge: MaskJudge
    archive: Archive
    context: Context
    graph: Data
    rules: list[RuleResult]
    policy: NeuronPolicy
    best: Candidate
    log: list[dict[str, Any]] = field(default_factory=list)


def prune(
    classifier: Classifier,
    fit: Labelled,
    reward: Labelled,
    select: Labelled,
    triggers: Sequence[Trigger],
    *,
    config: PruningConfig | None = None,
    seed: int,
    progress: Progress = silent,
    reprobe: Reprobe | None = None,
    probability: float | None = None,
) -> PruneResult:
    """Cut the groups that carry the backdoor.

    Args:
        classifier: The suspect; never changed.
        fit: Samples and classes that the triggers were fitted to; also count for clean accuracy.
        reward: Samples that give the reward.
        select: Samples that the search does not read; with the others they choose among finished candidates.
        triggers: Candidate triggers; with none, nothing is cut.
        config: Settings.
        seed: Of policy and search: same seed, same result.
        progress: Called often.
        reprobe: Probes a pruned network from scratch; without it the triggers are never refreshed.
        probability: Of a backdoor, as the probe has it: under one half more is asked of a cut. Unknown: as if high.

    Returns:
        The pruned clone, the cuts, the log and the evidence.
    """
    config = demanding(config or PruningConfig(), probability)
    started, spent = time.monotonic(), sample_passes()
    groups = nodes(classifier, tuple(fit[0].shape[1:]), config)
    split = any(group.kind == BRANCH for group in groups)
    if not groups or not triggers:
        reason = "no prunable group" if not groups else "no candidate trigger"
        log: list[dict[str, Any]] = [{"event": "nothing to do", "reason": reason}]
        nothing = Candidate((), 0.0, (), 0.0, True)
        return PruneResult(
            classifier.clone(), [], groups, nothing, [], log, {}, time.monotonic() - started, 0.0, None, split
        )

    wiring = connections(classifier.graph, groups)
    log = [{"event": "graph", "groups": len(groups), "layers": list(wiring.layers)}]
    triggers = worth_following(triggers, fit[0])
    known = strengthened(triggers, config)
    carried: list[Candidate] = []
    earlier: list[tuple[int, ...]] = []
    state: Round | None = None
    for number in range(config.refreshes + 1):
        state = search_round(
            classifier, groups, wiring, fit, reward, known, config,
            seed=seed + number, number=number, carried=carried,
            deadline=started + config.seconds, progress=progress,
        )  # fmt: skip
        log += state.log
        earlier += [*(rule.cut for rule in state.rules), state.best.cut]
        if state.best.reward < config.least_reward:
            log.append({"event": "not worth it", "round": number, "reward": state.best.reward})
            break
        if number == config.refreshes or reprobe is None or time.monotonic() > started + config.seconds:
            break
        progress("probing the pruned network again", number, config.refreshes)
        fresh = held_to_size(
            list(reprobe(cut_clone(classifier, groups, state.best.cut), seed + 101 + number)), triggers, fit[0]
        )
        fresh = strengthened(fresh, config)
        left = _success_left(classifier, groups, reward, fresh, state.best.cut, config.reward)
        log.append({"event": "refresh", "round": number, "fresh": len(fresh), "success_left": left})
        if left < config.settled:
            break
        known += fresh
        carried = state.archive.best(config.candidates)
    assert state is not None

    chosen, rows = choose(classifier, groups, state, (fit, reward, select), known, config, earlier)
    log += rows
    pruned = cut_clone(classifier, groups, chosen.cut)
    if chosen.cut and reprobe is not None:
        progress("verifying the cuts", 0, 1)
        again = reprobe(classifier.clone(), seed + 201), reprobe(pruned, seed + 201)
        ratios = growth(*again, triggers, fit[0])
        sizes = [{"family": f, "target": t, "ratio": ratio} for (f, t), ratio in ratios.items()]
        log.append({"event": "verified", "cut": list(chosen.cut), "growth": sizes})
        if class_growth(ratios, triggers) < config.least_growth:
            chosen, pruned = uncut(state), classifier.clone()
    log.append(_row("chosen", chosen))
    patient = Archive(state.judge.patiently)  # what racing dropped was not judged on all samples
    evidence = Evidence(
        groups, state.context.attributes, state.graph, state.policy, state.judge, patient, chosen, config.max_cuts
    )
    progress("explaining the cuts", 0, 1)
    explanation = explain(evidence, seed=seed) if config.explain else {}
    return PruneResult(
        pruned,
        [groups[i] for i in chosen.cut],
        groups,
        chosen,
        state.rules,
        log,
        explanation,
        time.monotonic() - started,
        sample_passes() - spent,
        evidence,
        split,
    )


def demanding(config: PruningConfig, probability: float | None) -> PruningConfig:
    """Settings for a network with this probability of a backdoor."""
    if probability is None or probability >= 0.5:
        return config
    return config.model_copy(
        update={
            "least_reward": max(config.least_reward, config.doubtful_reward),
            "least_growth": max(config.least_growth, config.doubtful_growth),
        }
    )


def nodes(classifier: Classifier, input_shape: tuple[int, ...], config: PruningConfig) -> list[Group]:
    """What the search may cut: the groups of the network, streams taken apart where the settings say so."""
    groups = find_groups(classifier.graph, input_shape)
    return split_branches(classifier.graph, groups) if config.branches else groups


def worth_following(triggers: Sequence[Trigger], x: Tensor) -> list[Trigger]:
    """Triggers without those that hardly count in the reward."""
    pairs = sorted({pair_of(t) for t in triggers})
    weight = dict(zip(pairs, pair_weights(triggers, pairs, x).tolist(), strict=True))
    floor = NEGLIGIBLE / len({t.family for t in triggers})
    return [t for t in triggers if weight[pair_of(t)] >= floor]


def strengthened(triggers: Sequence[Trigger | Scaled], config: PruningConfig) -> list[Trigger | Scaled]:
    """Triggers, and the same exaggerated."""
    return [*triggers, *exaggerated(triggers, config.exaggeration)] if config.exaggeration > 1 else list(triggers)


def search_round(
    classifier: Classifier,
    groups: Sequence[Group],
    wiring: Connections,
    fit: Labelled,
    reward: Labelled,
    triggers: Sequence[Trigger | Scaled],
    config: PruningConfig,
    *,
    seed: int,
    number: int,
    carried: Sequence[Candidate],
    deadline: float,
    progress: Progress,
) -> Round:
    """Measure, try the rules, learn, tidy up: one round against a fixed set of triggers.

    Args:
        classifier: The suspect.
        groups: Its groups.
        wiring: Their connections.
        fit: Samples for the attributes.
        reward: Samples for the reward.
        triggers: All triggers known by now.
        config: Settings.
        seed: Of this round.
        number: Of the round, for the log.
        carried: Best masks of the round before, judged anew.
        deadline: See ``PruningConfig.seconds``.
        progress: Called often.
    """
    progress("measuring the neurons", 0, 1)
    attributes = measure(classifier, groups, wiring, fit, triggers)
    judge = MaskJudge(classifier, groups, joined(fit, reward), reward, triggers, config.reward, seed=seed)
    problem = Problem(
        groups, wiring, attributes, judge, longest(len(groups), config.max_cuts), layer_share=config.layer_share
    )
    env, rules = problem.environment(prior=config.prior, graph=config.graph, rules=config.rules)
    archive = env.archive
    if carried:
        archive.judge(_as_cuts([c.cut for c in carried], len(groups)))
    policy = new_policy(
        config.policy, seed, pretrained=config.pretrained, folder=config.policy_dir
    )  # anew each round: an agent that has settled no longer looks around
    log: list[dict[str, Any]] = [
        {
            "event": "rules",
            "round": number,
            "triggers": [{"family": t.family, "target": t.target} for t in triggers],
            "success_before": judge.before.tolist(),
            "rules": [{"name": r.name, "reward": r.reward, "cut": list(r.cut)} for r in rules],
        }
    ]
    learner = config.ppo
    if config.pretrained or config.policy_dir is not None:
        learner = learner.model_copy(update={"experience": True})  # it learned with it
    if number:
        less = {name: round(config.later * getattr(learner, name)) for name in ("masks", "iterations", "patience")}
        learner = learner.model_copy(update=less)
    rows = learn(env, policy, learner, seed=seed, rule_reward=rules[0].reward, deadline=deadline, progress=progress)
    log += [{**row, "round": number} for row in rows]
    tidied = tidy(archive, archive.best()[0], len(groups)) if config.tidy else archive.best()[0]
    log.append(
        {**_row("best of round", tidied), "round": number, "rule_reward": rules[0].reward, "masks": archive.judged}
    )
    return Round(judge, archive, problem.context, env.graph, rules, policy, tidied, log)


def new_policy(
    config: PolicyConfig, seed: int, *, pretrained: bool = False, folder: Path | None = None
) -> NeuronPolicy:
    """An agent at its start: of a folder, the shipped one, or an untrained one (same seed, same weights)."""
    if pretrained or folder is not None:
        return load_policy(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NeuronPolicy(len(NODE_ATTRIBUTES), EDGE_FEATURES, config)


def tidy(archive: Archive, best: Candidate, groups: int) -> Candidate:
    """Put back, one after the other, every group whose cut does not pay; the best mask seen after that."""
    while best.cut:
        archive.judge(_as_cuts([tuple(g for g in best.cut if g != back) for back in best.cut], groups))
        better = archive.best()[0]
        if better.reward <= best.reward:
            break
        best = better
    return best


def choose(
    classifier: Classifier,
    groups: Sequence[Group],
    state: Round,
    parts: tuple[Labelled, Labelled, Labelled],
    triggers: Sequence[Trigger | Scaled],
    config: PruningConfig,
    also: Sequence[tuple[int, ...]] = (),
) -> tuple[Candidate, list[dict[str, Any]]]:
    """Pick among the best masks by their reward on all samples together, the select split among them.

    The best masks are often the same few cuts with different others, which pay by chance where samples are few; so the
    best mask of each number of cuts is a candidate, too. The select split alone is too small: the price of accuracy past
    the budget is steep, and in a hundred samples a right cut and a harmful one cannot be told apart. The uncut network is
    always a candidate, and it wins when the others' falls in probe success are under ``least_fall`` or their rewards, in
    the search or on all samples, under ``least_reward``.

    Args:
        classifier: The suspect.
        groups: Its groups.
        state: The last round.
        parts: Fit, reward and select samples.
        triggers: All triggers known by now.
        config: Settings.
        also: Further masks to consider, such as what rules and earlier rounds came to.

    Returns:
        The choice and one log row a candidate.
    """
    _, reward, select = parts
    best = [*state.archive.best(config.candidates), *state.archive.frugal(config.candidates)]
    again = judged_anew([cut for cut in also if cut], state.judge, len(groups))
    candidates = list({c.cut: c for c in [*best, *again]}.values())
    candidates = [*(c for c in candidates if c.cut), uncut(state)]
    keep = ~_as_cuts([c.cut for c in candidates], len(groups))
    held = joined(reward, select)
    every = config.reward.model_copy(update={"triggered": len(triggers) * len(held[1])})
    outcome = MaskJudge(classifier, groups, select, select, triggers, every).patiently(keep)
    together = MaskJudge(classifier, groups, joined(*parts), held, triggers, every).patiently(keep)
    rows, scores = [], []
    for i, candidate in enumerate(candidates):
        fall = float(state.judge.class_fall(torch.tensor([candidate.success])))
        score = float(together.reward[i])
        if candidate.cut and (fall < config.least_fall or min(candidate.reward, score) < config.least_reward):
            score = -1.0
        scores.append(score)
        rows.append(
            {
                **_row("candidate", candidate),
                "select_reward": float(outcome.reward[i]),
                "select_success": outcome.success[i].tolist(),
                "select_drop": float(outcome.drop[i]),
                "score": score,
            }
        )
    return candidates[int(torch.tensor(scores).argmax())], rows


def judged_anew(cuts: Sequence[tuple[int, ...]], judge: MaskJudge, groups: int) -> list[Candidate]:
    """Masks as candidates, judged on all of the judge's samples."""
    archive = Archive(judge.patiently)
    if cuts:
        archive.judge(_as_cuts(cuts, groups))
    return archive.best(len(cuts))


def uncut(state: Round) -> Candidate:
    """The mask that cuts nothing."""
    return Candidate((), 0.0, tuple(state.judge.before.tolist()), 0.0, True)


def cut_clone(classifier: Classifier, groups: Sequence[Group], cut: Sequence[int]) -> Classifier:
    """A clone with the weights of some groups set to zero."""
    clone = classifier.clone()
    zero_groups(clone.graph, [groups[i] for i in cut])
    return clone


def _success_left(
    classifier: Classifier,
    groups: Sequence[Group],
    held: Labelled,
    triggers: Sequence[Any],
    cut: tuple[int, ...],
    config: RewardConfig,
) -> float:
    """Weighted success against one mask of the triggers to the class that weighs most; 0 without triggers."""
    if not triggers:
        return 0.0
    judge = MaskJudge(classifier, groups, (held[0][:1], held[1][:1]), held, triggers, config)
    success = judge(~_as_cuts([cut], len(groups))).success[0]
    targets = torch.tensor([target for _, target in judge.pairs])
    totals = {target: float(judge.weight[targets == target].sum()) for target in targets.tolist()}
    mine = targets == max(totals, key=totals.__getitem__)
    return float(success[mine] @ judge.weight[mine] / judge.weight[mine].sum())


def _as_cuts(cuts: Sequence[tuple[int, ...]], groups: int) -> Tensor:
    out = torch.zeros(len(cuts), groups, dtype=torch.bool)
    for row, cut in enumerate(cuts):
        out[row, list(cut)] = True
    return out


def _row(event: str, candidate: Candidate) -> dict[str, Any]:
    return {
        "event": event,
        "cut": list(candidate.cut),
        "reward": candidate.reward,
        "success": list(candidate.success),
        "drop": candidate.drop,
    }
