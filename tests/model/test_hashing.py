from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.fx import GraphModule

from modelmend.model.hashing import content_hash, graph_hash
from modelmend.model.pt2 import read_pt2
from tests.model.hostile import edited_graph


@pytest.fixture
def graph(clean: Path) -> GraphModule:
    return read_pt2(clean)


def test_node_names_layout_and_dead_nodes_do_not_count(graph: GraphModule, clean: Path, tmp_path: Path) -> None:
    def rename(program: dict[str, Any]) -> None:
        text = str(program["graph_module"]["graph"]["nodes"])
        assert "'linear'" in text

        def walk(value: Any) -> Any:
            if isinstance(value, dict):
                return {("q" if k == "linear" else k): walk(v) for k, v in value.items()}
            if isinstance(value, list):
                return [walk(v) for v in value]
            return "q" if value == "linear" else value

        program["graph_module"]["graph"] = walk(program["graph_module"]["graph"])

    renamed = read_pt2(edited_graph(clean, tmp_path / "renamed.pt2", rename))
    assert content_hash(renamed) == content_hash(graph)
    other = copy.deepcopy(graph)
    weight = other.get_parameter("fc.weight")
    weight.data = weight.data.t().contiguous().t()
    first = next(n for n in other.graph.nodes if n.op == "call_function")
    with other.graph.inserting_after(first):
        other.graph.call_function(torch.ops.aten.relu.default, (next(iter(other.graph.nodes)),))
    assert content_hash(other) == content_hash(graph)


def test_defaults_written_out_do_not_count(graph: GraphModule) -> None:
    other = copy.deepcopy(graph)
    node = next(n for n in other.graph.nodes if str(n.target) == "aten.linear.default")
    node.args, node.kwargs = node.args[:2], {"bias": node.args[2]}
    assert content_hash(other) == content_hash(graph)


def _multiply_sizes(g: GraphModule) -> None:
    node = next(n for n in g.graph.nodes if str(n.target) == "aten.reshape.default" and n.args[1][-1] == 2)
    node.args = (node.args[0], [node.args[1][0], 4])


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.get_parameter("fc.weight").data.view(-1)[0].add_(1e-7),
        lambda g: g.double(),
        lambda g: g.register_buffer("extra", torch.zeros(1)),
        lambda g: setattr(g.fc, "bias", torch.nn.Parameter(g.fc.bias.data.reshape(1, 3))),
        lambda g: setattr(
            next(n for n in g.graph.nodes if n.target == torch.ops.aten.relu.default),
            "target",
            torch.ops.aten.silu.default,
        ),
        _multiply_sizes,
    ],
)
def test_what_changes_the_model_changes_the_hash(graph: GraphModule, change: Any) -> None:
    other = copy.deepcopy(graph)
    with torch.no_grad():
        change(other)
    assert content_hash(other) != content_hash(graph)


def test_structure_hash_ignores_numbers(graph: GraphModule) -> None:
    other = copy.deepcopy(graph)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert graph_hash(other) == graph_hash(graph)
    assert content_hash(other) != content_hash(graph)
