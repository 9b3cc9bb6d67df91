"""A file may hold an export after decomposition to core operators: the same groups are read off it."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from modelmend.model.groups import find_groups
from modelmend.model.masks import Masked
from modelmend.model.pt2 import read_pt2
from modelmend.model.remove import remove_groups

from .graphs import apart, groups_of
from .zoo import ZOO


@pytest.mark.parametrize("name", ["cnn_small", "densenet", "signal"])
def test_the_same_groups_after_decomposition(name, exported, tmp_path):
    _, program = exported(name)
    torch.export.save(program.run_decompositions(), tmp_path / "core.pt2")
    graph, shape, x = read_pt2(tmp_path / "core.pt2"), ZOO[name].shape, ZOO[name].inputs(3)
    groups = find_groups(graph, shape)
    assert Counter(g.kind for g in groups) == Counter(g.kind for g in groups_of(name))
    cut = torch.arange(len(groups)) % 3 == 0
    with torch.no_grad():
        small = remove_groups(graph, [g for g in groups if cut[g.index]], shape)
        assert apart(Masked(graph, groups)(x, ~cut), small(x)) <= 1e-4
