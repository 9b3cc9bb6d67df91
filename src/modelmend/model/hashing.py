"""The content hash: one name for a model, whatever file, container or node names it is stored under."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node


def content_hash(graph: GraphModule) -> str:
    """Hash of what a model computes with, and how.

    ``sha256`` over the tensors (dotted name, element type, shape, bytes; also those that the graph does not read) and
    over the graph below its output: each node is hashed from its operator, its arguments with all defaults filled in,
    and the hashes of the nodes that it reads. Node names, node order, dead nodes, file names and memory layout do not
    count.

    Args:
        graph: The model form.

    Returns:
        ``"sha256:"`` and 64 hex digits.
    """
    tensors = sorted([*graph.named_parameters(remove_duplicate=False), *graph.named_buffers(remove_duplicate=False)])
    record = {"tensors": [_tensor(name, t) for name, t in tensors], "output": graph_hash(graph)}
    return "sha256:" + _digest(record)


def graph_hash(graph: GraphModule) -> str:
    """Hash of the structure alone, 64 hex digits: equal for two models of one architecture and one set of names."""
    digests: dict[Node, str] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, OpOverload):
            content: list[Any] = ["call", str(node.target), _call(node, digests)]
        elif node.op == "call_function":
            content = ["call", getattr(node.target, "__name__", ""), [_value(a, digests) for a in node.args]]
        elif node.op == "placeholder":
            content = ["input"]
        elif node.op == "output":
            content = ["output", _value(node.args[0], digests)]
        else:
            content = [node.op, str(node.target)]
        digests[node] = _digest(content)
        if node.op == "output":
            return digests[node]
    raise ValueError("the graph has no output")


def _call(node: Node, digests: dict[Node, str]) -> dict[str, Any]:
    """Every schema argument by name, defaults filled in."""
    assert isinstance(node.target, OpOverload)
    schema = node.target._schema.arguments
    given = dict(zip((a.name for a in schema if not a.kwarg_only), node.args, strict=False)) | dict(node.kwargs)
    return {
        a.name: _value(given.get(a.name, a.default_value if a.has_default_value() else None), digests, str(a.real_type))
        for a in schema
    }


def _value(value: Any, digests: dict[Node, str], declared: str = "") -> Any:
    if isinstance(value, Node):
        return {"node": digests[value]}
    if isinstance(value, (list, tuple)):
        return [_value(v, digests, declared) for v in value]
    if declared in ("MemoryFormat", "Optional[MemoryFormat]") and isinstance(value, int):
        return str(torch.contiguous_format)
    if "float" in declared and isinstance(value, int):
        value = float(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return {type(value).__name__: repr(value)}


def _tensor(name: str, tensor: Tensor) -> list[Any]:
    plain = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return [name, str(tensor.dtype), list(tensor.shape), hashlib.sha256(plain.numpy().data).hexdigest()]


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
