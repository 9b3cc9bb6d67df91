"""ANP: learn which channels react to adversarial weight noise, cut them (Wu & Wang, arXiv 2110.14430).

The public benchmark picks the threshold by test ASR; here it is the deepest cut that the select split still affords.
Networks of 80 channels end with most masks at exactly 0, so channels are ranked by their mask's mean over all steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from benchmarks.baselines.graph import Norm, accuracy, norms, tensor
from benchmarks.parts import NotApplicableError, Parts
from modelmend.model.classifier import Classifier
from modelmend.progress import Progress, silent

STEPS, BATCH, LR = 2000, 128, 0.2
EPSILON, ALPHA = 0.4, 0.2
LARGEST_DROP = 0.02


def adversarial_neuron_pruning(
    classifier: Classifier, parts: Parts, seed: int, *, effort: float = 1.0, progress: Progress = silent
) -> Classifier:
    """Masks ``m`` minimise ``alpha L(m) + (1 - alpha) max_|d| <= eps L(m + d)``; channels with a small mask are cut."""
    layers = norms(classifier.graph)
    if not layers:
        raise NotApplicableError("ANP needs batch norm")
    work = classifier.clone().frozen()
    sizes = [len(tensor(work.graph, norm.weight)) for norm in layers]
    mask = torch.ones(sum(sizes), requires_grad=True)
    mean = torch.zeros(sum(sizes))
    optimizer = torch.optim.SGD([mask], LR, momentum=0.9)
    x, y = parts.repair
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, round(STEPS * effort))

    def loss(scale: Tensor, shift: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        weights = _noisy(work, layers, sizes, scale, shift)
        return nn.functional.cross_entropy(functional_call(work, weights, (images,)), labels)

    for step in range(steps):
        index = torch.randint(len(x), (min(BATCH, len(x)),), generator=generator)
        images, labels = x[index], y[index]
        noise = (torch.rand(2, len(mask), generator=generator) * 2 - 1) * EPSILON
        noise.requires_grad_()
        worst = loss(mask.detach() + noise[0], 1 + noise[1], images, labels)
        ascent = torch.autograd.grad(worst, noise)[0].sign() * EPSILON
        plain = loss(mask, torch.ones_like(mask), images, labels)
        robust = loss(mask + ascent[0], 1 + ascent[1], images, labels)
        optimizer.zero_grad()
        torch.autograd.backward(ALPHA * plain + (1 - ALPHA) * robust)
        optimizer.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
            mean += mask / steps
        progress("ANP", step + 1, steps)
    return _deepest(classifier, layers, mean, parts)


def _noisy(work: Classifier, layers: list[Norm], sizes: list[int], scale: Tensor, shift: Tensor) -> dict[str, Tensor]:
    changed = {}
    for norm, a, b in zip(layers, torch.split(scale, sizes), torch.split(shift, sizes), strict=True):
        changed[f"graph.{norm.weight}"] = tensor(work.graph, norm.weight) * a
        changed[f"graph.{norm.bias}"] = tensor(work.graph, norm.bias) * b
    return changed


def _deepest(classifier: Classifier, layers: list[Norm], score: Tensor, parts: Parts) -> Classifier:
    """Cut channels in order of their score while the select split loses no more than ``LARGEST_DROP``."""
    owners = [(norm, channel) for norm in layers for channel in range(len(tensor(classifier.graph, norm.weight)))]
    best, work = classifier.clone(), classifier.clone()
    floor = accuracy(classifier, parts.select.x, parts.select.y) - LARGEST_DROP
    for index in score.argsort().tolist():
        norm, channel = owners[index]
        with torch.no_grad():
            tensor(work.graph, norm.weight)[channel] = 0
            tensor(work.graph, norm.bias)[channel] = 0
        if accuracy(work, parts.select.x, parts.select.y) < floor:
            break
        best = work.clone()
    return best
