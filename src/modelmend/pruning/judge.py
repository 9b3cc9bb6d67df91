"""What a mask is worth on a real network, measured without any knowledge of the attacker's trigger.

    R(m) = sum over pairs p of  w_p [s_p(1) - s_p(m)]  -  penalty(d(m), d_T(m))  -  price * groups cut

A *pair* is a trigger family and the class it leads to. Its weight falls with the fourth power of its trigger's size
against the smallest of the family, since a class that needs a far larger change than another one is hardly the
attacker's; every family has a share that grows with the lead of the class in it, multiplied by the square of the
number of families that name the pair's class; the weights sum to one. The lead matters because every class has natural
triggers, which no cut removes at a bearable price: only a family in which the class stands out sees the backdoor.
Every generation of candidate triggers of that pair (those found on the suspect, and those found again on pruned
networks) is applied, and ``s_p`` is the success of the most successful one: a mask has to beat all of them. ``d`` is
the fall in clean accuracy, ``d_T`` that of the triggers' own classes. All rates are averages of the share of samples
(what counts in the end) and of the mean probability (what a few samples can resolve). Right on a clean sample is
partly its label, partly whatever the suspect itself thinks likely.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from modelmend.model.classifier import Classifier
from modelmend.model.groups import Group
from modelmend.probe.weights import pair_of, pair_weights
from modelmend.pruning.environment import Outcome
from modelmend.pruning.forward import MEMORY, MaskedForward
from modelmend.pruning.reward import RewardConfig, penalty

if TYPE_CHECKING:
    from modelmend.probe.trigger import Trigger
    from modelmend.pruning.refresh import Scaled

EXAGGERATED = " x"
"""Mark in the family name of an exaggerated trigger."""
FEW = 3.0
"""Samples of a class whose evidence weighs as much as the assumption that the class did not suffer."""

Labelled = tuple[Tensor, Tensor]
"""Samples ``(N, C, H, W)`` in 0..1 and their classes ``(N,)``."""


class MaskJudge:
    """Judges masks over the groups of one network; a ``Judge`` for the environment.

    Args:
        classifier: The suspect.
        groups: Its prunable groups, ``G`` of them.
        clean: Samples for the accuracy.
        held: Samples for probe success, which no trigger was fitted to.
        triggers: Candidate triggers; those without a target class count samples that leave their class.
        config: Weights.
        chunk: Samples between two rounds of racing; by default 64 images or 256 smaller samples.
        seed: Order of samples, so that the first chunk holds a share of everything.
        memory: Bytes that half-computed masks may take; ``None``: a gigabyte.
    """

    def __init__(
        self,
        classifier: Classifier,
        groups: Sequence[Group],
        clean: Labelled,
        held: Labelled,
        triggers: Sequence[Trigger | Scaled],
        config: RewardConfig,
        *,
        chunk: int | None = None,
        seed: int = 0,
        memory: int | None = None,
    ) -> None:
        self.config = config
        self.pairs = sorted({pair_of(t) for t in triggers})
        each = max(24, config.triggered // max(1, len(triggers)))
        x, label, kind, pair = _rows(clean, held, triggers, self.pairs, each)
        chunk = chunk or (64 if x[0].numel() > 256 else 256)
        order = _interleaved(kind, seed)
        self._kind, self._pair = kind[order], pair
        self._of_kind = functional.one_hot(self._kind, len(pair) + 1).float()
        self.x = x[order]
        self.forward = MaskedForward(classifier, groups, self.x, chunk=chunk, memory=memory or MEMORY)
        uncut = torch.cat([self.forward.clean_logits(i) for i in range(len(self.forward.chunks))])
        self._wanted = _wanted(label[order], self._kind == 0, uncut.softmax(1), config.labels)
        self._hits, self._chance = self._rates(uncut[None], slice(0, self.samples))
        self.before = self.success(self._hits, self._chance)[0]
        self.weight = pair_weights(triggers, self.pairs, held[0])
        targets = torch.tensor([target for _, target in self.pairs], dtype=torch.long)
        self._own = torch.where(targets >= 0, self._wanted[:, targets], 0.0) * (self._kind == 0)[:, None]
        self._leader, self._ahead = -float("inf"), torch.zeros(0)

    @property
    def samples(self) -> int:
        """Rows that a mask judged to the end is run on: clean and triggered."""
        return len(self._kind)

    def __call__(self, keep: Tensor) -> Outcome:
        """Judge masks, bool ``(M, G)``; those that are hopeless or far behind are dropped on the way (racing).

        Far behind is meant against the best mask that was asked for since ``forget``, so the order of the questions counts.
        """
        racing, cuts = torch.arange(len(keep)), (~keep).sum(1).cpu()
        hits, chance = torch.zeros(len(keep), self.samples), torch.full((len(keep), self.samples), torch.nan)
        for i, rows in enumerate(self._slices()):
            if i and len(racing) and (self.config.race_margin or self.config.race_reward):
                racing = racing[~self._beaten(hits[racing], chance[racing], cuts[racing], i - 1, rows.start)]
            if len(racing):
                hits[racing, rows], chance[racing, rows] = self._rates(self.forward.logits(keep[racing], i), rows)
        whole = torch.zeros(len(keep), dtype=torch.bool)
        whole[racing] = True
        outcome = Outcome(*self._worth(hits, chance, cuts), whole)
        if self.config.race_reward and len(racing):
            first = racing[outcome.reward[racing].argmax()]
            if float(outcome.reward[first]) > self._leader:
                self._leader = float(outcome.reward[first])
                self._ahead = self._on_the_way(hits[first, None], chance[first, None], cuts[first, None])
        return outcome

    def forget(self) -> None:
        """Begin a new race: nothing is behind any more."""
        self._leader, self._ahead = -float("inf"), torch.zeros(0)

    def patiently(self, keep: Tensor) -> Outcome:
        """Outcome of masks ``(M, G)``, each judged on all samples."""
        return self._of_all(*self.rows(keep), keep)

    def _beaten(self, hits: Tensor, chance: Tensor, cuts: Tensor, chunk: int, judged: int) -> Tensor:
        """Which masks need no further samples, bool ``(M,)``; never the uncut network.

        Args:
            hits: As of ``_rates``, ``(M, samples)``.
            chance: The same; NaN where not judged yet.
            cuts: Number of groups cut, ``(M,)``.
            chunk: Index of the last judged chunk.
            judged: Samples up to there.
        """
        beaten = torch.zeros(len(hits), dtype=torch.bool)
        if self.config.race_margin:
            beaten |= self._hopeless(hits[:, :judged], chance[:, :judged])
        if self.config.race_reward and len(self._ahead):
            reward, _, _ = self._worth(hits, chance, cuts)
            room = self.config.race_reward * (1 / judged - 1 / self.samples) ** 0.5
            beaten |= reward < self._ahead[chunk] - room
        return beaten & (cuts > 0)

    def _on_the_way(self, hits: Tensor, chance: Tensor, cuts: Tensor) -> Tensor:
        """Reward of one wholly judged mask ``(1, samples)`` as it was after each chunk, ``(chunks,)``."""
        ends = torch.tensor([rows.stop for rows in self._slices()])
        seen = torch.arange(self.samples) < ends[:, None]
        n = len(ends)
        partial = torch.where(seen, chance, torch.nan)
        return self._worth(hits.expand(n, -1), partial, cuts.expand(n))[0]

    def outcome_of(self, logits: Tensor, keep: Tensor) -> Outcome:
        """Outcome of masks ``(M, G)`` from logits ``(M, samples, classes)`` made elsewhere, samples as in ``x``."""
        return self._of_all(*self._rates(logits, slice(0, self.samples)), keep)

    def _of_all(self, hits: Tensor, chance: Tensor, keep: Tensor) -> Outcome:
        """Outcome of masks ``(M, G)`` that were judged on all samples."""
        whole = torch.ones(len(keep), dtype=torch.bool)
        return Outcome(*self._worth(hits, chance, (~keep).sum(1).cpu()), whole)

    def _worth(self, hits: Tensor, chance: Tensor, cuts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reward ``(M,)``, success ``(M, P)`` and accuracy drop ``(M,)`` of masks that cut so many groups ``(M,)``.

        Where not all samples are judged (NaN), the error is the one that all of them would have.
        """
        success, (drop, error) = self.success(hits, chance), self.drop(hits, chance)
        done = (~chance[:, self._kind == 0].isnan()).float().mean(1)
        cautious = drop + self.config.caution * error * done.sqrt()
        price = penalty(cautious, self.class_drop(hits, chance), self.config) + self.config.price * cuts
        return (self.fall(success) - price).clamp(-1, 1), success, drop

    def rows(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Hit or not and its probability, of each mask and sample ``(M, samples)``, without racing."""
        parts = [self._rates(self.forward.logits(keep, i), s) for i, s in enumerate(self._slices())]
        return torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1)

    def _slices(self) -> list[slice]:
        """Rows of each chunk."""
        ends = torch.tensor([len(c) for c in self.forward.chunks]).cumsum(0).tolist()
        return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]

    def _rates(self, logits: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """How much of what was wanted the answer, and the probabilities on average, gives; each ``(M, n)``."""
        wanted = self._wanted[rows].to(logits.device)
        hits = wanted.expand(len(logits), -1, -1).gather(2, logits.argmax(2, keepdim=True)).squeeze(2)
        return hits.cpu(), (logits.softmax(2) * wanted).sum(2).cpu()

    def success(self, hits: Tensor, chance: Tensor) -> Tensor:
        """Success of each pair's most successful trigger, ``(M, P)``."""
        return self._success(hits, chance, self._of_kind)

    def fall(self, success: Tensor) -> Tensor:
        """Weighted fall in success ``(M,)`` of ``(M, P)``, against the uncut network."""
        return (self.before - success) @ self.weight

    def class_fall(self, success: Tensor) -> Tensor:
        """The largest weighted fall ``(M,)`` that any one class saw: natural triggers of others do not hide it.

        Exaggerated triggers are left out, since many of them work on any network.
        """
        falls = []
        plain = torch.tensor([EXAGGERATED not in p[0] for p in self.pairs], dtype=torch.bool)
        for target in {p[1] for p in self.pairs}:
            mine = torch.tensor([p[1] == target for p in self.pairs]) & plain
            if bool(mine.any()):
                falls.append((self.before - success)[:, mine] @ (self.weight[mine] / self.weight[mine].sum()))
        return torch.stack(falls).amax(0) if falls else success.new_zeros(len(success))

    def resampled(self, hits: Tensor, chance: Tensor, rows: Tensor) -> Tensor:
        """The same on drawn samples: column i of ``hits`` and ``chance`` is sample ``rows[i]``."""
        return self._success(hits, chance, self._of_kind[rows])

    def _success(self, hits: Tensor, chance: Tensor, of_kind: Tensor) -> Tensor:
        """Blend of share and mean probability, samples not judged (NaN) left out; ``of_kind (n, 1 + triggers)``."""
        if not self.pairs:
            return torch.zeros(len(hits), 0)
        judged, shares = (~chance.isnan()).float(), self.config.shares
        blend = (shares * hits + (1 - shares) * chance.nan_to_num()) * judged
        each = ((blend @ of_kind) / (judged @ of_kind).clamp_min(1))[:, 1:]
        return torch.stack([each[:, self._pair == p].amax(1) for p in range(len(self.pairs))], 1)

    def drop(self, hits: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        """Fall in clean accuracy against the uncut network, on what was judged, and its standard error; ``(M,)``."""
        rows = (self._kind[: hits.shape[1]] == 0).nonzero().flatten()
        loss = self._loss(hits, chance)[:, rows]
        judged = ~chance[:, rows].isnan()
        n = judged.sum(1).clamp_min(1)
        mean = (loss * judged).sum(1) / n
        error = (((loss - mean[:, None]) * judged).square().sum(1)).sqrt() / n
        return mean, error

    def _loss(self, hits: Tensor, chance: Tensor) -> Tensor:
        """What each sample lost against the uncut network ``(M, n)``."""
        width = hits.shape[1]
        fewer, less = self._hits[:, :width] - hits, self._chance[:, :width] - chance.nan_to_num()
        return self.config.shares * fewer + (1 - self.config.shares) * less

    def class_drop(self, hits: Tensor, chance: Tensor) -> Tensor:
        """Fall in accuracy of the triggers' own classes ``(M,)``, by their weight; shrunk where samples are few."""
        judged = (~chance.isnan()).float()
        fall = (self._loss(hits, chance) * judged) @ self._own / (judged @ self._own + FEW)
        return fall @ self.weight

    def _hopeless(self, hits: Tensor, chance: Tensor) -> Tensor:
        """Whether the accuracy drop so far is past the budget beyond doubt, ``(M,)``."""
        drop, error = self.drop(hits, chance)
        return drop - self.config.budget > (self.config.race_margin * error).clamp_min(0.05)


def joined(*parts: Labelled) -> Labelled:
    """Several splits as one."""
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def _interleaved(kind: Tensor, seed: int) -> Tensor:
    """A random order ``(N,)`` of samples of these kinds ``(N,)`` in which every stretch holds its share of each kind."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.empty(len(kind))
    for one in torch.unique(kind):
        mine = (kind == one).nonzero().flatten()
        drawn = torch.randperm(len(mine), generator=generator)
        place[mine] = (drawn + torch.rand(len(mine), generator=generator)) / len(mine)
    return place.argsort()


def _wanted(label: Tensor, clean: Tensor, own: Tensor, labels: float) -> Tensor:
    """What counts as right, a weight for each class ``(N, classes)``.

    Args:
        label: Class wanted; ``-y - 1``: any class but y.
        clean: Which samples are clean; their label is softened by ``own``.
        own: The suspect's probabilities ``(N, classes)``.
        labels: Weight of the label on clean samples.
    """
    away = label < 0
    one = torch.zeros_like(own).scatter_(1, torch.where(away, -label - 1, label)[:, None].to(own.device), 1.0)
    hard = torch.where(away[:, None].to(own.device), 1 - one, one)
    return torch.where(clean[:, None].to(own.device), labels * one + (1 - labels) * own, hard).cpu()


def _rows(
    clean: Labelled, held: Labelled, triggers: Sequence[Trigger | Scaled], pairs: list[tuple[str, int]], each: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, wanted class (``-y - 1``: any but y), kind (0 clean, i + 1 trigger i); and the pair of each trigger."""
    x, y = held
    inputs, labels, kinds = [clean[0]], [clean[1]], [torch.zeros(len(clean[1]), dtype=torch.long)]
    for i, trigger in enumerate(triggers):
        others = (y != trigger.target if trigger.target is not None else y >= 0).nonzero().flatten()
        others = others[torch.linspace(0, len(others) - 1, min(each, len(others))).round().long()]
        wanted = -y - 1 if trigger.target is None else torch.full_like(y, trigger.target)
        with torch.no_grad():
            inputs.append(trigger(x[others]))
        labels.append(wanted[others])
        kinds.append(torch.full_like(others, i + 1))
    pair = torch.tensor([pairs.index(pair_of(t)) for t in triggers], dtype=torch.long)
    return torch.cat(inputs), torch.cat(labels), torch.cat(kinds), pair
