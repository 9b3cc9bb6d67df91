"""What neighbours tell is found where it was planted, and not where it was not."""

import numpy as np
import pytest
from benchmarks.graph_information import TARGETS, left_over, neighbourly, predicted, table

GROUPS = 60


def network(seed: int, told_by: str) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(GROUPS, 3))
    edge = draw.integers(GROUPS, size=(2, 240))
    figures = {"x": x, "edge": edge.astype(float), "layer": np.arange(GROUPS) // 15.0}
    figures["strength"] = np.concatenate([np.tile([1.0, 0.0, 1.0], (120, 1)), np.tile([0.0, 1.0, 1.0], (120, 1))])
    worth = {
        "own": x[:, 0],
        "similar": neighbourly(figures, x, 0)[0][:, 0],
        "flow": neighbourly(figures, x, 1)[0][:, 0],
    }
    return figures | {target: worth[told_by] + 0.01 * draw.normal(size=GROUPS) for target in TARGETS}


@pytest.mark.parametrize(
    ("told_by", "best"), [("own", "own"), ("similar", "own and similar"), ("flow", "own and flow")]
)
def test_worth_is_predicted_from_where_it_was_planted(told_by, best):
    columns = {"own": (0,), "own and similar": (0, 1), "own and flow": (0, 2)}
    networks = [network(seed, told_by) for seed in range(4)]
    found = {name: np.mean(predicted(networks, TARGETS[0], chosen)) for name, chosen in columns.items()}
    assert found[best] > 0.9
    assert best == "own" or max(v for k, v in found.items() if k != best) < 0.5


def test_neighbours_means_are_weighted_and_only_over_one_kind():
    figures = {"edge": np.array([[0.0, 1, 2], [2, 2, 0]]), "strength": np.array([[1, 0, 1.0], [1, 0, 3], [0, 1, 1]])}
    mean, some = neighbourly(figures, np.array([1.0, 5.0, 7.0]), 0)
    assert mean[2] == pytest.approx(4) and some.tolist() == [False, False, True]


def test_what_a_layer_shares_is_told_from_what_neighbours_share():
    figures = network(0, "own")
    shifted = figures | {TARGETS[0]: figures[TARGETS[0]] + 3 * figures["layer"]}
    assert left_over(shifted, TARGETS[0])[2] > 0.5
    assert abs(left_over(figures, TARGETS[0])[2]) < 0.4
    assert len(table([network(0, "own"), network(1, "own")]).splitlines()) == 11
