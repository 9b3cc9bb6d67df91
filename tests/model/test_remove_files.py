from __future__ import annotations

import pytest
import torch

from modelmend.model.pt2 import read_pt2, write_pt2
from modelmend.model.remove import remove_groups

from .graphs import graph_of, groups_of
from .zoo import ZOO


@pytest.mark.parametrize("name", ["resnet8", "shufflenet", "vit_mha", "swin"])
def test_the_file_of_the_smaller_model_is_smaller_and_reads_back(name, tmp_path):
    shape, x = ZOO[name].shape, ZOO[name].inputs(3)
    small = remove_groups(graph_of(name), groups_of(name)[::2], shape)
    write_pt2(graph_of(name), tmp_path / "whole.pt2", shape)
    write_pt2(small, tmp_path / "small.pt2", shape)
    assert (tmp_path / "small.pt2").stat().st_size < (tmp_path / "whole.pt2").stat().st_size
    with torch.no_grad():
        assert torch.equal(read_pt2(tmp_path / "small.pt2")(x), small(x))
