"""One plane wave added to every image: a family with so few parameters that natural classes are seldom reached by it.

A sinusoid is what SIG (arXiv 1902.11237) adds, and what many faint, periodic triggers are near. ``spectral`` may add up
many waves and then leads to ordinary classes, too; a single one hardly does. The loss has a valley for each frequency,
so all waves of whole periods are tried first, for all classes at once, and the best of each class starts the descent.
The parametrisation and the search are ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modelmend.probe.form import AddedForm, Parameters, per_class, triggered
from modelmend.probe.search import Forward, Start

PERIODS = 8
"""Most periods along the image; more than a quarter of a period a pixel is texture."""
PHASES = 4
STRENGTHS = (0.05, 0.1)
"""Sizes at which waves are compared: about the smallest that a backdoor needs, and what ordinary classes withstand."""
FIRST, SECOND, KEPT = 16, 64, 4
"""Samples that all waves are tried on, and those that the best of each class are compared on; how many go on to that."""
BATCH = 256


class WaveForm(AddedForm):
    """``x + sqrt(2) h cos(2 pi k z + phase)``, the same in every channel: size ``h`` = root mean square change, of the range.

    Args:
        x: Images ``(N, C, H, W)`` that show shape and range.
    """

    largest = 0.4

    def __init__(self, x: Tensor) -> None:
        super().__init__(x)
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
        most = [max(1, min(PERIODS, side // 4)) for side in self.shape[1:]]
        pairs = [(a, b) for a in range(most[0] + 1) for b in range(-most[1], most[1] + 1) if a > 0 or b > 0]
        inside = [(a, b) for a, b in pairs if (a / most[0]) ** 2 + (b / most[1]) ** 2 <= 1]
        return torch.tensor(inside, dtype=torch.float32)

    def parts(self, parameters: Parameters) -> dict[str, Tensor]:
        """The perturbation and the range."""
        wave, height = parameters["wave"], parameters["height"]
        angle = 2 * math.pi * torch.einsum("kd,dhw->khw", wave[:, :2], self.places) + per_class(wave[:, 2], self.places)
        return self.added(math.sqrt(2) * height[:, :, None, None] * angle.cos()[:, None])

    def size(self, parameters: Parameters) -> Tensor:
        """Root mean square of the change ``(K,)``; of a wave of whole periods, three pixels long at least."""
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

    Compared is what the descent minimises, the loss, and not how many samples are flipped: a wave that is out of phase, or
    too faint by half, flips none and is still the best place to start from.

    Args:
        forward: View of the model.
        form: The parametrisation.
        x: Clean samples ``(N, C, H, W)``.
        y: Labels.

    Returns:
        Where the descent of each class starts: at the wave of least loss, a second search of it at the next one.
    """
    periods = form.lattice().to(x.device)
    phases = 2 * math.pi * torch.arange(PHASES, device=x.device) / PHASES
    waves = torch.cat([periods.repeat_interleave(PHASES, 0), phases.repeat(len(periods))[:, None]], 1)
    # files may be sorted by class
    mixed = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)).to(x.device)
    few, more = mixed[:FIRST], mixed[:SECOND]
    best = _losses(forward, form, x[few], y[few], waves).topk(min(KEPT, len(waves)), 0, largest=False).indices
    tried, place = torch.unique(best, return_inverse=True)
    again = _losses(forward, form, x[more], y[more], waves[tried]).gather(0, place)  # (KEPT, classes)
    ranked = waves[best.gather(0, again.argsort(0))]

    def start(target: int, number: int) -> Parameters:
        return form.sized(ranked[number % len(ranked), target][None], STRENGTHS[-1])

    return start


def _losses(forward: Forward, form: WaveForm, x: Tensor, y: Tensor, waves: Tensor) -> Tensor:
    """Mean cross-entropy ``(M, classes)`` of each wave towards each class, over the samples of other classes and ``STRENGTHS``."""
    found = []
    for strength in STRENGTHS:
        rows = []
        for part in torch.split(waves, max(1, BATCH // len(x))):
            changed = triggered(form, form.sized(part, strength), x.expand(len(part), *x.shape)).flatten(0, 1)
            logits = forward(changed, x.repeat(len(part), 1, 1, 1)).float()
            loss = -logits.log_softmax(1).reshape(len(part), len(x), -1)
            others = (y[:, None] != torch.arange(loss.shape[2], device=y.device)).to(loss.device)
            rows.append((loss * others).sum(1) / others.sum(0).clamp_min(1))
        found.append(torch.cat(rows))
    return torch.stack(found).mean(0)
