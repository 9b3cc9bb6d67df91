"""Feature-space decoupling: hold the features that the clean task needs, look for a change that moves only the rest.

After BTI-DBF (arXiv 2401.15002), which learns a mask over deep features and trains a generator that changes only those
off the mask. Ours is lighter: the mask is learned so that the rest can be *swapped between samples* without harm, and
the search then reads ``head(m h(x) + (1 - m) h(x'))``: benign features of the clean sample, the rest of the changed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modelmend.model.classifier import Classifier
from modelmend.probe.fast import fast_copy
from modelmend.probe.search import Forward
from modelmend.probe.tap import Tap

STEPS = 150
PRICE = 1.5
"""Price of the mean of the mask, in cross-entropy: as small a mask as keeps the clean task."""


def decoupled(classifier: Classifier, x: Tensor, y: Tensor, *, seed: int) -> Forward:
    """View in which only the features that the clean task does not need can be moved."""
    tap = Tap(fast_copy(classifier, x))
    mask = benign_mask(tap, x, y, seed=seed)

    def forward(changed: Tensor, clean: Tensor) -> Tensor:
        with torch.no_grad():
            _, held = tap.features(clean)
        return tap.logits(changed, lambda moved: mask * held + (1 - mask) * moved)

    return forward


def benign_mask(tap: Tap, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
    """Mask ``(D,)`` in 0..1 of the features that suffice for the clean task.

    ``min_m  CE(head(m h(x) + (1 - m) h(x_pi)), y) + price * mean(m)`` with a random pairing ``pi`` in every step.

    Args:
        tap: The model with its features open.
        x: Clean samples.
        y: Labels.
        seed: Of the pairings.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        held = torch.cat([tap.features(part)[1] for part in torch.split(x, 256)])
    weight = torch.full(held.shape[1:], 2.0, device=held.device, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.1)
    for _ in range(STEPS):
        order = torch.randperm(len(held), generator=generator)
        mask = torch.sigmoid(weight)
        loss = nn.functional.cross_entropy(tap.head(mask * held + (1 - mask) * held[order]), y) + PRICE * mask.mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return torch.sigmoid(weight).detach()
