"""The search as an environment: a state is a set of cut groups, an action cuts one more group or stops.

What a mask is worth comes from a ``Judge``; this file only knows rules of the game: which actions are legal, what a
state tells the agent, how step rewards add up, and which masks were seen. The judge of real networks is in
``judge.py``; tests plug in a formula.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modelmend.pruning import experience
from modelmend.pruning.policy import State

if TYPE_CHECKING:
    from torch_geometric.data import Data


@dataclass(frozen=True)
class Outcome:
    """What ``M`` masks do, on the samples that give the reward.

    Attributes:
        reward: ``(M,)``, -1..1; 0 for the uncut network.
        success: Probe success that is left, a column a trigger, ``(M, T)``, 0..1.
        drop: Clean-accuracy drop, ``(M,)``, -1..1.
        whole: Judged on all samples, bool ``(M,)``; False where racing dropped the mask early.
    """

    reward: Tensor
    success: Tensor
    drop: Tensor
    whole: Tensor

    def __getitem__(self, index: Tensor) -> Outcome:
        return Outcome(self.reward[index], self.success[index], self.drop[index], self.whole[index])


Judge = Callable[[Tensor], Outcome]
"""``judge(keep)`` with ``keep`` bool ``(M, G)``: what these masks do."""


@dataclass(frozen=True)
class Candidate:
    """One mask that the search has seen."""

    cut: tuple[int, ...]
    reward: float
    success: tuple[float, ...]
    drop: float
    whole: bool


class Archive:
    """Every mask judged so far, each judged once; the best ones become the candidates of the final choice."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._seen: dict[bytes, Candidate] = {}
        self._known: dict[bytes, Candidate] = {}
        self._given: dict[bytes, Candidate] = {}
        self.judged = 0

    def judge(self, cut: Tensor) -> Outcome:
        """Outcome of cut sets, bool ``(M, G)``; a repeated set costs nothing."""
        keys = [row.tobytes() for row in cut.cpu().numpy()]
        new = list({key: row for row, key in enumerate(keys) if key not in self._seen}.values())
        if new:
            outcome = self._judge(~cut[new])
            self.judged += len(new)
            for i, row in enumerate(new):
                self._seen[keys[row]] = Candidate(
                    tuple(cut[row].nonzero().flatten().tolist()),
                    float(outcome.reward[i]),
                    tuple(outcome.success[i].tolist()),
                    float(outcome.drop[i]),
                    bool(outcome.whole[i]),
                )
        rows = [self._seen[key] for key in keys]
        self._known.update(zip(keys, rows, strict=True))
        return Outcome(
            torch.tensor([r.reward for r in rows]),
            torch.tensor([r.success for r in rows]).reshape(len(rows), -1),
            torch.tensor([r.drop for r in rows]),
            torch.tensor([r.whole for r in rows]),
        )

    def best(self, count: int = 1) -> list[Candidate]:
        """The ``count`` wholly judged masks of highest reward, best first; of equals, the one with fewer cuts."""
        whole = (c for c in self._seen.values() if c.whole)
        return sorted(whole, key=lambda c: (-round(c.reward, 9), len(c.cut), c.cut))[:count]

    def give(self) -> None:
        """What was asked for until now is known to an agent that meets the network for the first time."""
        self._given = dict(self._known)

    def meet(self) -> dict[bytes, Candidate]:
        """Know only what was given, as at first sight; masks stay judged. Returns what was known."""
        known, self._known = self._known, dict(self._given)
        return known

    def remember(self, known: dict[bytes, Candidate]) -> None:
        """Know again what ``meet`` returned."""
        self._known = known

    def experience(self, groups: int) -> Tensor:
        """Attributes ``(G, 3)`` of what is known: see ``experience``."""
        if not self._known:
            return torch.zeros(groups, len(experience.NAMES))
        cut = torch.zeros(len(self._known), groups, dtype=torch.bool)
        for row, candidate in enumerate(self._known.values()):
            cut[row, list(candidate.cut)] = True
        reward, drop = (torch.tensor([getattr(c, name) for c in self._known.values()]) for name in ("reward", "drop"))
        return experience.attributes(cut, reward, drop)

    def frugal(self, count: int) -> list[Candidate]:
        """The best wholly judged mask of 1 cut, of 2, ... of ``count``, as far as there are any of positive reward."""
        found: dict[int, Candidate] = {}
        for candidate in self.best(len(self._seen)):
            if candidate.reward > 0 and 0 < len(candidate.cut) <= count:
                found.setdefault(len(candidate.cut), candidate)
        return [found[size] for size in sorted(found)]

    def forget(self) -> list[Candidate]:
        """Empty the archive, because rewards have changed; returns what was the best 32."""
        best = self.best(32)
        for memory in (self._seen, self._known, self._given):
            memory.clear()
        return best


class CutEnvironment:
    """``B`` searches side by side.

    The step reward is the difference of the masks' rewards, ``r_t = R(s_{t+1}) - R(s_t)``, so that an undiscounted
    return is the reward of the set at which the agent stopped, whatever the order; the differences say which cut
    earned it.

    Args:
        graph: Neuron graph; ``graph.layer (G,)`` numbers the layer of each group.
        archive: Judges masks.
        limit: Longest search, in cuts.
        layer_share: No more than this share of a layer's groups is cut (at least one group always stays).
        hopeless: An episode ends where the accuracy drop passes this.
    """

    def __init__(
        self, graph: Data, archive: Archive, *, limit: int, layer_share: float = 0.5, hopeless: float = 0.25
    ) -> None:
        self.graph = graph
        self.archive = archive
        self.limit = limit
        self.hopeless = hopeless
        self._layer: Tensor = graph.layer
        sizes = torch.bincount(self._layer)
        self._most = torch.minimum((sizes * layer_share).floor().clamp_min(1), sizes - 1).clamp_min(0)
        self.cut = torch.zeros(0, len(self._layer), dtype=torch.bool)
        self._outcome = archive.judge(torch.zeros(1, len(self._layer), dtype=torch.bool))
        archive.give()

    @property
    def groups(self) -> int:
        """Number of groups; the action of this index means *stop*."""
        return len(self._layer)

    def reset(self, batch: int) -> State:
        """Start ``batch`` searches from the uncut network."""
        return self.begin(torch.zeros(batch, self.groups, dtype=torch.bool))

    def recall(self) -> None:
        """Write what was found out so far into the graph's last attributes."""
        self.graph.x[:, -len(experience.NAMES) :] = self.archive.experience(self.groups)

    def begin(self, cut: Tensor) -> State:
        """Start a search from each of these cut sets, bool ``(B, G)``."""
        self.cut = cut.clone()
        self._outcome = self.archive.judge(self.cut)
        self.done = torch.zeros(len(cut), dtype=torch.bool)
        return self.state()

    def state(self) -> State:
        """Where the searches stand."""
        o = self._outcome
        success = o.success if o.success.shape[1] else o.reward[:, None] * 0
        context = [self.cut.sum(1) / self.limit, success.mean(1), success.amax(1), 10 * o.drop, o.reward]
        return State(self.cut.clone(), torch.stack([c.float() for c in context], 1))

    def whole(self) -> Tensor:
        """Which searches stand at a set that was judged on all samples, bool ``(B,)``."""
        return self._outcome.whole

    def legal(self) -> Tensor:
        """Actions that each search may take, bool ``(B, G + 1)``; stopping is always legal."""
        per_layer = torch.zeros(len(self.cut), len(self._most)).index_add_(1, self._layer, self.cut.float())
        room = (per_layer < self._most)[:, self._layer] & ~self.cut & (self.cut.sum(1, keepdim=True) < self.limit)
        return torch.cat([room, torch.ones(len(room), 1, dtype=torch.bool)], 1)

    def step(self, action: Tensor) -> tuple[State, Tensor, Tensor]:
        """Take one action a search, long ``(B,)``; finished searches ignore theirs.

        Returns:
            The new state, the step reward ``(B,)``, and which searches are over ``(B,)``.
        """
        cutting = (action < self.groups) & ~self.done
        self.cut[cutting.nonzero().flatten(), action[cutting]] = True
        before = self._outcome.reward
        self._outcome = self.archive.judge(self.cut)
        reward = torch.where(cutting, self._outcome.reward - before, torch.zeros_like(before))
        self.done = self.done | ~cutting | (self._outcome.drop > self.hopeless) | (self.cut.sum(1) >= self.limit)
        return self.state(), reward, self.done.clone()
