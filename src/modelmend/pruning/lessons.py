"""A network that a policy learns on: classifier, clean samples and triggers become a problem to search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from modelmend.errors import InputError
from modelmend.pruning.attributes import measure
from modelmend.pruning.connections import connections
from modelmend.pruning.judge import Labelled, MaskJudge, joined
from modelmend.pruning.onp import PruningConfig, cut_clone, nodes, strengthened, worth_following
from modelmend.pruning.problem import Problem, longest
from modelmend.pruning.refresh import Reprobe, Scaled, held_to_size

if TYPE_CHECKING:
    from modelmend.model.classifier import Classifier
    from modelmend.probe.trigger import Trigger


def lesson(
    classifier: Classifier,
    fit: Labelled,
    reward: Labelled,
    triggers: Sequence[Trigger],
    *,
    config: PruningConfig | None = None,
    seed: int,
    again: Reprobe | None = None,
    memory: int | None = None,
) -> Problem:
    """Pose the search as ``prune`` does: in its first round, or with ``again`` as after a refresh.

    Args:
        classifier: An infected network; never changed.
        fit: Samples and classes that the triggers were fitted to.
        reward: Others, that give the reward.
        triggers: What a probe found on it.
        config: Settings; the learner's are not read.
        seed: Order of the judged samples; ``again`` gets the next one.
        again: Probes the network that the best rule pruned; what it finds, held to size, joins the triggers.
        memory: Bytes that the judge may keep of half-computed masks.

    Raises:
        InputError: there is nothing to cut, or nothing to cut it for.
    """
    config = config or PruningConfig()
    groups = nodes(classifier, tuple(fit[0].shape[1:]), config)
    if not groups or not triggers:
        raise InputError("no prunable group" if not groups else "no candidate trigger", fix="leave this network out")
    wiring = connections(classifier.graph, groups)

    def pose(known: Sequence[Trigger | Scaled]) -> Problem:
        strong = strengthened(known, config)
        attributes = measure(classifier, groups, wiring, fit, strong)
        judge = MaskJudge(
            classifier, groups, joined(fit, reward), reward, strong, config.reward, seed=seed, memory=memory
        )
        limit = longest(len(groups), config.max_cuts)
        return Problem(groups, wiring, attributes, judge, limit, config.layer_share)

    first = worth_following(triggers, fit[0])
    problem = pose(first)
    if again is None:
        return problem
    rule = problem.environment(rules=config.rules)[1][0]
    fresh = again(cut_clone(classifier, groups, rule.cut), seed + 1)
    return pose([*first, *held_to_size(fresh, first, fit[0])])
