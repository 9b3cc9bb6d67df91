"""A copy of a classifier that computes the same function faster: batch norms folded into the convolutions before them.

Searching for triggers is thousands of forward and backward passes with frozen weights, so a fold made once pays.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx

from modelmend.model.classifier import Classifier

TOLERANCE = 1e-3
"""Largest relative deviation of the logits at which the folded copy is taken."""


def fast_copy(classifier: Classifier, x: Tensor) -> Classifier:
    """An independent frozen copy for searching, in the memory layout that convolutions like.

    Args:
        classifier: The model; not changed.
        x: A few samples on which the copy must agree; where it does not, a plain copy is returned.
    """
    plain = classifier.clone().frozen()
    folded = Classifier(
        _fold(copy.deepcopy(plain.graph)),
        classifier.preprocessing,
        classifier.num_classes,
        probabilities=classifier.probabilities,
    ).frozen()
    for candidate in (_channels_last(folded), folded):
        try:
            with torch.no_grad():
                expected, found = plain(x[:8]), candidate(x[:8])
            probe = x[:2].clone().requires_grad_(x.is_floating_point())
            if probe.requires_grad:
                torch.autograd.grad(candidate(probe).sum(), probe)
        except RuntimeError:
            continue
        if bool(((expected - found).abs() <= TOLERANCE * (1 + expected.abs())).all()):
            return candidate
    return plain


def _channels_last(classifier: Classifier) -> Classifier:
    last = classifier.clone()
    for tensor in (*last.graph.parameters(), *last.graph.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    return last


def _fold(graph: fx.GraphModule) -> fx.GraphModule:
    aten = torch.ops.aten
    values = {**dict(graph.named_parameters()), **dict(graph.named_buffers())}
    for node in list(graph.graph.nodes):
        if node.target is not aten.batch_norm.default or node.args[5]:
            continue
        source, fixed = node.args[0], node.args[1:5]
        if source.target is not aten.conv2d.default or len(source.users) != 1:
            continue
        inputs = (source.args[1], source.args[2] if len(source.args) > 2 else None, *fixed)
        if any(n is not None and (n.op != "get_attr" or n.target not in values) for n in inputs):
            continue
        weight, bias, scale, shift, mean, variance = (0 if n is None else values[n.target].detach() for n in inputs)
        gain = (variance + node.args[7]).rsqrt() * (1 if inputs[2] is None else scale)
        offset = shift + gain * (bias - mean)
        name = f"folded_{node.name}"
        graph.register_buffer(f"{name}_weight", weight * gain.reshape(-1, 1, 1, 1))
        graph.register_buffer(f"{name}_bias", offset)
        with graph.graph.inserting_before(node):
            parts = (graph.graph.get_attr(f"{name}_weight"), graph.graph.get_attr(f"{name}_bias"))
            merged = graph.graph.call_function(aten.conv2d.default, (source.args[0], *parts, *source.args[3:]))
        node.replace_all_uses_with(merged)
        graph.graph.erase_node(node)
        graph.graph.erase_node(source)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph
