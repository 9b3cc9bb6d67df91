from __future__ import annotations

import torch

from modelmend.model.groups import find_groups
from modelmend.pruning.connections import Connections, connections
from modelmend.pruning.graph import FLOW, SIMILAR, GraphConfig, build_graph, rank_prior


def wiring(vectors: torch.Tensor) -> Connections:
    n = len(vectors)
    zeros = torch.zeros(n)
    return Connections(
        torch.zeros(n, dtype=torch.long), ("a",), (vectors,), torch.zeros(n, n), zeros, zeros, zeros, torch.zeros(n, 4)
    )


def edges(graph, kind: int) -> set[tuple[int, int]]:  # type: ignore[no-untyped-def]
    return {tuple(e) for e in graph.edge_index[:, graph.edge_type == kind].T.tolist()}


def test_alike_filters_are_linked_and_dormant_ones_are_not() -> None:
    vectors = torch.tensor([[1.0, 0.1], [1.0, 0.12], [0.1, 1.0], [1e-3, 1e-4], [0.3, 1.0], [1.0, 0.9]])
    found = edges(build_graph(torch.zeros(6, 2), torch.zeros(6), wiring(vectors), GraphConfig(similarity=0.7)), SIMILAR)
    assert (0, 1) in found and (1, 0) in found
    assert not any(3 in pair for pair in found)
    assert (0, 2) not in found


def test_flow_edges_join_layers_and_can_be_left_out(clean) -> None:  # type: ignore[no-untyped-def]
    graph = clean.classifier.graph
    groups = find_groups(graph, (1, 8, 8))
    found = connections(graph, groups)
    with_flow = build_graph(torch.zeros(len(groups), 2), torch.zeros(len(groups)), found)
    pairs = edges(with_flow, FLOW)
    assert pairs and all(abs(int(found.layer[a] - found.layer[b])) == 1 for a, b in pairs)
    without = build_graph(torch.zeros(len(groups), 2), torch.zeros(len(groups)), found, GraphConfig(flow=False))
    assert not edges(without, FLOW) and edges(without, SIMILAR)


def test_connection_vectors_are_l1_norms_of_the_filters(clean) -> None:  # type: ignore[no-untyped-def]
    graph = clean.classifier.graph
    groups = find_groups(graph, (1, 8, 8))
    found = connections(graph, groups)
    weight = graph.get_parameter("conv2.weight")
    assert torch.allclose(found.vectors[1], weight.abs().sum((2, 3)))
    first, second = 3, 16 + 5
    assert torch.isclose(found.flow[first, second], weight[5, 3].abs().sum())
    bound = torch.linalg.matrix_norm(weight[5].flatten(1), 2)
    scale = graph.get_parameter("bn2.weight")[5].abs() / (graph.get_buffer("bn2.running_var")[5] + 1e-5).sqrt()
    assert torch.isclose(found.lipschitz[second], bound * scale, rtol=1e-4)


def test_prior_falls_with_the_rank() -> None:
    prior = rank_prior(torch.tensor([0.1, 3.0, 2.0]))
    assert prior.argsort(descending=True).tolist() == [1, 2, 0] and float(prior[1]) == 0
