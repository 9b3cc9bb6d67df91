from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from modelmend.errors import ModelUnsupported
from modelmend.model import write
from modelmend.model.export import export_module
from modelmend.model.hashing import content_hash
from modelmend.model.pt2 import read_pt2
from modelmend.model.write import write_pt2
from tests.model.hostile import Net

_WRITE = """
import sys, torch
from modelmend.model.pt2 import read_pt2
from modelmend.model.write import write_pt2
write_pt2(read_pt2(sys.argv[1]), sys.argv[2], (4,))
"""


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_bytes_do_not_depend_on_the_file_name_or_the_process(clean: Path, tmp_path: Path) -> None:
    write_pt2(read_pt2(clean), tmp_path / "a.pt2", (4,))
    write_pt2(read_pt2(tmp_path / "a.pt2"), tmp_path / "another name.pt2", (4,))
    src = Path(__file__).parents[2] / "src"
    command = [sys.executable, "-c", _WRITE, str(clean), str(tmp_path / "c.pt2")]
    subprocess.run(command, check=True, timeout=200, env={"PYTHONPATH": str(src), "OMP_NUM_THREADS": "1"})
    assert len({_sha(path) for path in tmp_path.glob("*.pt2")}) == 1


def test_archive_holds_zeros_and_no_trace_of_its_origin(clean: Path, tmp_path: Path) -> None:
    write_pt2(read_pt2(clean), tmp_path / "a.pt2", (4,))
    with zipfile.ZipFile(tmp_path / "a.pt2") as archive:
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
        text = archive.read("model/models/model.json").decode()
        (sample,), _ = torch.load(io.BytesIO(archive.read("model/data/sample_inputs/model.pt")), weights_only=True)
    assert not any(word in text for word in ("stack_trace", ".py", "hostile", "/root", "torch_fn"))
    assert sample.shape == (2, 4)
    assert not sample.any()


def test_layer_names_survive(clean: Path, tmp_path: Path) -> None:
    write_pt2(read_pt2(clean), tmp_path / "a.pt2", (4,))
    layers = {n.meta["module"] for n in read_pt2(tmp_path / "a.pt2").graph.nodes if n.op == "call_function"}
    assert layers == {"", "fc"}


def test_weights_edited_in_place_are_what_is_written(clean: Path, tmp_path: Path) -> None:
    graph = read_pt2(clean)
    with torch.no_grad():
        graph.get_parameter("fc.weight")[1].zero_()
    graph.requires_grad_(False)
    write_pt2(graph, tmp_path / "a.pt2", (4,))
    stock = torch.export.load(tmp_path / "a.pt2")
    assert torch.equal(stock.state_dict["fc.weight"], graph.get_parameter("fc.weight"))
    assert content_hash(read_pt2(tmp_path / "a.pt2")) == content_hash(graph) != content_hash(read_pt2(clean))


def test_graph_is_not_changed_by_writing(clean: Path, tmp_path: Path) -> None:
    graph = read_pt2(clean)
    before = (content_hash(graph), [p.requires_grad for p in graph.parameters()], str(graph.graph))
    write_pt2(graph, tmp_path / "a.pt2", (4,))
    assert before == (content_hash(graph), [p.requires_grad for p in graph.parameters()], str(graph.graph))


def test_model_that_does_not_come_back_the_same_leaves_no_file(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(path: Path) -> Any:
        graph = read_pt2(path)
        with torch.no_grad():
            next(graph.parameters()).add_(1e-6)
        return graph

    monkeypatch.setattr(write, "read_pt2", other)
    target = tmp_path / "a.pt2"
    target.write_bytes(b"what was there")
    with pytest.raises(ModelUnsupported, match="not the same"):
        write_pt2(read_pt2(clean), target, (4,))
    assert target.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [target]


def test_mlflow_loads_what_was_written_without_pickle(
    clean: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    folder = tmp_path / "model"
    (folder / "data").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors:\n  pytorch:\n    model_data: data\n    pytorch_version: 2.13.0\n")
    graph = read_pt2(clean)
    write_pt2(graph, folder / "data" / "model.pt2", (4,))
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
    x = torch.rand(5, 4)
    with torch.no_grad():
        assert torch.equal(mlflow.pytorch.load_model(str(folder))(x), graph(x))


def test_export_of_trusted_code_leaves_the_module_as_it_was() -> None:
    module = Net().train()
    graph = export_module(module, (4,))
    x = torch.rand(3, 4)
    assert module.training
    assert torch.equal(graph(x), module(x))


def test_module_that_branches_on_its_data_is_refused_in_those_words() -> None:
    class Branching(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.sum() > 0 else super().forward(-x)

    with pytest.raises(ModelUnsupported, match="depends on its data"):
        export_module(Branching(), (4,))


def test_module_with_a_fixed_batch_size_is_refused() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(2, 4) + torch.zeros(2, 4)

    with pytest.raises(ModelUnsupported, match="free batch size"):
        export_module(Fixed(), (4,))
