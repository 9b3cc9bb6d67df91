"""One plane wave added to every image: a family with so few parameters that natural classes are seldom reached by it.

A sinusoid is what SIG (arXiv 1902.11237) adds, and what many faint, periodic triggers are near. ``spectral`` may add up
many waves and then leads to ordinary classes, too; a single one hardly does. The loss has a valley for each frequency,
so all waves of whole periods are tried first, for all classes at once, and the best of each class starts the descent.
The parametrisation and the search are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modelmend.probe.families.family import Start
from modelmend.probe.form import Parameters, bound_parts, per_class, sample_range
from modelmend.probe.search import Forward

PERIODS = 8
"""Most periods along the image; more than a quarter of a period a pixel is texture."""
PHASES = 4
STRENGTHS = (0.05, 0.1)
"""Sizes at which waves are compared: about the smallest that a backdoor needs, and what ordinary classes withstand."""
FIRST, SECOND, KEPT = 16, 64, 4
"""Samples that all waves are tried on, and those that the best of each class are compared on; how many go on to that."""
BATCH = 256


class WaveForm:
    """``x + h cos(2 pi k z + phase)``, the same in every channel: size = root mean square change as a share of the range.

    Args:
        x: Images ``(N, C, H, W)`` that show shape and range.
    """

    largest = 0.4

    def __init__(self, x: Tensor) -> None:
        self.low, self.high = sample_range(x)
        self.shape = tuple(x.shape[1:])
        self.span = (self.high - self.low).clamp_min(1e-6)
        height, width = self.shape[1:]
        rows, columns = torch.arange(height) / height, torch.arange(width) / width
        self.places = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).to(x.device)

    def start(self, classes: int, generator: torch.Generator) -> Parameters:
        """A random wave."""
        periods = self.lattice()
        chosen = torch.randint(len(periods), (classes,), generator=generator)
        phase = 2 * math.pi * torch.rand((classes, 1), generator=generator)
        return self.sized(torch.cat([periods[chosen], phase], 1), 0.1)

    def sized(self, waves: Tensor, size: float) -> Parameters:
        """Parameters of waves ``(K, 3)``, periods down and across and phase, all of one size."""
        return {"wave": waves.clone(), "height": torch.full((len(waves), 1), size, device=waves.device)}

    def lattice(self) -> Tensor:
        """Whole periods ``(M, 2)`` of one of each pair of opposite directions."""
        most = min(PERIODS, *(side // 4 for side in self.shape[1:]))
        steps = range(-most, most + 1)
        inside = [
            (a, b) for a in steps for b in steps if (a > 0 or (a == 0 and b > 0)) and a * a + b * b <= most * most
        ]
        return torch.tensor(inside or [(0, 1)], dtype=torch.float32)

    def parts(self, parameters: Parameters) -> dict[str, Tensor]:
        """The perturbation and the range."""
        wave, height = parameters["wave"], parameters["height"]
        angle = 2 * math.pi * torch.einsum("kd,dhw->khw", wave[:, :2], self.places) + per_class(wave[:, 2], self.places)
        delta = math.sqrt(2) * height[:, :, None, None] * angle.cos()[:, None] * self.span
        return {"delta": delta, **bound_parts(self.low, self.high, len(delta))}

    def size(self, parameters: Parameters) -> Tensor:
        """Root mean square of the change ``(K,)``, of a wave of whole periods."""
        return parameters["height"].abs().squeeze(1)

    def project(self, parameters: Parameters, radius: Tensor) -> None:
        """Lower the wave to the radius."""
        height = parameters["height"]
        height.copy_(torch.minimum(height.abs(), radius[:, None]) * height.sign())

    def step(self, parameters: Parameters, radius: Tensor) -> dict[str, Tensor]:
        """A step as long as the radius in height, a tenth of a period in frequency and of a radian in phase."""
        return {"height": radius, "wave": torch.full_like(radius, 0.1)}


@torch.no_grad()
def try_waves(forward: Forward, form: WaveForm, x: Tensor, y: Tensor) -> Start:
    """Try every wave of whole periods on a few samples, the best of each class on more.

    Args:
        forward: View of the model.
        form: The parametrisation.
        x: Clean samples ``(N, C, H, W)``.
        y: Labels.

    Returns:
        Where the descent of each class starts: at the wave that led most samples to it.
    """
    periods = form.lattice().to(x.device)
    phases = 2 * math.pi * torch.arange(PHASES, device=x.device) / PHASES
    waves = torch.cat([periods.repeat_interleave(PHASES, 0), phases.repeat(len(periods))[:, None]], 1)
    few, more = torch.arange(min(FIRST, len(x))), torch.arange(min(SECOND, len(x)))
    rates = _rates(forward, form, x[few], y[few], waves)
    best = rates.topk(min(KEPT, len(waves)), 0).indices  # (KEPT, classes)
    again = _rates(forward, form, x[more], y[more], waves[best.flatten()])
    own = again.reshape(*best.shape, -1).diagonal(dim1=1, dim2=2)  # of each class by its own candidates
    winners = waves[best.gather(0, own.argmax(0, keepdim=True))[0]]

    def start(targets: Sequence[int], generator: torch.Generator) -> Parameters:
        del generator
        return form.sized(winners[list(targets)], STRENGTHS[-1])

    return start


def _rates(forward: Forward, form: WaveForm, x: Tensor, y: Tensor, waves: Tensor) -> Tensor:
    """Share of the samples of other classes that each wave leads to each class, mean over ``STRENGTHS``, ``(M, classes)``."""
    together = max(1, BATCH // len(x))
    found = []
    for strength in STRENGTHS:
        rows = []
        for part in torch.split(waves, together):
            delta = form.parts(form.sized(part, strength))["delta"]
            changed = torch.minimum(torch.maximum(x[None] + delta[:, None], form.low), form.high).flatten(0, 1)
            logits = forward(changed, x.repeat(len(part), *[1] * (x.dim() - 1)))
            hits = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1]).reshape(len(part), len(x), -1)
            others = (y[:, None] != torch.arange(logits.shape[1], device=y.device)).to(hits.device)
            rows.append((hits * others).sum(1) / others.sum(0).clamp_min(1))
        found.append(torch.cat(rows))
    return torch.stack(found).mean(0)
