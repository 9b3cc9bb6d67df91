from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modelmend.errors import ModelRefused, ModelUnsupported
from modelmend.model.hashing import content_hash
from modelmend.model.pt2 import read_pt2
from modelmend.model.scan import scan
from modelmend.model.write import write_pt2
from tests.model.hostile import edited_graph
from tests.model.zoo import ZOO


def _export(module: nn.Module, path: Path, *inputs: Tensor, dynamic: bool = True) -> Path:
    shapes = tuple({0: torch.export.Dim("batch", min=1, max=64)} for _ in inputs) if dynamic else None
    torch.export.save(torch.export.export(module, inputs, dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize("name", ZOO)
def test_family_is_read_bit_for_bit(name: str, exported: Any) -> None:
    path, program = exported(name)
    specimen = ZOO[name]
    graph = read_pt2(path)
    stock = program.module()
    with torch.no_grad():
        for batch in (1, 5):
            x = specimen.inputs(batch, seed=batch)
            assert torch.equal(graph(x), stock(x))
    assert {n: tuple(t.shape) for n, t in graph.state_dict().items()} == {
        n: tuple(t.shape) for n, t in program.state_dict.items()
    }
    assert scan(path).exit_code == 0


@pytest.mark.parametrize(
    "name",
    ["resnet_bottleneck", "regnet", "densenet", "squeezenet", "mobilenet_v3", "shufflenet", "swin", "signal", "text"],
)
def test_family_is_written_and_read_again_bit_for_bit(name: str, exported: Any, tmp_path: Path) -> None:
    graph, specimen, again = read_pt2(exported(name)[0]), ZOO[name], tmp_path / "again.pt2"
    write_pt2(graph, again, specimen.shape)
    assert content_hash(read_pt2(again)) == content_hash(graph)
    assert scan(again).exit_code == 0
    x = specimen.inputs(3)
    with torch.no_grad():
        assert torch.equal(torch.export.load(again).module()(x), graph(x))


@pytest.mark.parametrize("name", ["cnn_small", "vit_mha"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_element_types_are_read_and_written_bit_for_bit(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    module = ZOO[name].module().to(dtype)
    x = ZOO[name].inputs(3, dtype=dtype)
    path = _export(module, tmp_path / "m.pt2", x)
    graph = read_pt2(path)
    with torch.no_grad():
        assert torch.equal(graph(x), torch.export.load(path).module()(x))
    assert {p.dtype for p in graph.parameters()} == {dtype}
    write_pt2(graph, tmp_path / "again.pt2", ZOO[name].shape)
    with torch.no_grad():
        assert torch.equal(torch.export.load(tmp_path / "again.pt2").module()(x), graph(x))


def test_form_is_one_placeholder_pure_operators_and_one_tensor_out(exported: Any) -> None:
    graph = read_pt2(exported("regnet")[0])
    nodes = list(graph.graph.nodes)
    assert [n.name for n in nodes if n.op == "placeholder"] == ["x"]
    assert {n.op for n in nodes} == {"placeholder", "get_attr", "call_function", "output"}
    assert not [n for n in nodes if str(n.target).split(".")[1:2] and str(n.target).split(".")[1].endswith("_")]
    assert all(
        n.target in dict(graph.named_parameters()) | dict(graph.named_buffers()) for n in nodes if n.op == "get_attr"
    )
    assert isinstance(nodes[-1].args[0], torch.fx.Node)
    assert not any(m.training for m in graph.modules())


def test_nodes_know_their_layer(exported: Any) -> None:
    graph = read_pt2(exported("resnet8")[0])
    first = next(n for n in graph.graph.nodes if str(n.target) == "aten.conv2d.default")
    assert first.meta["module"] == "conv1"


def test_input_shape_and_type_come_from_the_file(exported: Any) -> None:
    x = next(n for n in read_pt2(exported("text")[0]).graph.nodes if n.op == "placeholder")
    assert (x.meta["shape"], x.meta["dtype"]) == ((None, 12), torch.int64)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.rnn, self.fc = kind(6, 8, num_layers=2, batch_first=True, bidirectional=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_networks_are_read(kind: type[nn.RNNBase], tmp_path: Path) -> None:
    module, x = Recurrent(kind).eval(), torch.rand(3, 5, 6)
    graph = read_pt2(_export(module, tmp_path / "m.pt2", x))
    with torch.no_grad():
        assert torch.equal(graph(x), module(x))
        assert graph(torch.rand(7, 5, 6)).shape == (7, 3)


class Called(nn.Module):
    """A module out of one function, around a linear layer."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.fc, self.function = nn.Linear(4, 3), function
        self.register_buffer("steps", torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def _branch(m: Any, x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (m.fc(x),))


def _counts(m: Any, x: Tensor) -> Tensor:
    m.steps.add_(1)
    return m.fc(x)


def _reads_a_slice_after_its_base_changed(m: Any, x: Tensor) -> Tensor:
    y = m.fc(x)
    part = y[:, 0]
    part.mul_(2)
    y.add_(1)
    return y + part.unsqueeze(1)


def _writes_through_a_view(m: Any, x: Tensor) -> Tensor:
    y = m.fc(x)
    y.view(-1).mul_(2)
    return y.relu()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_branch, "depends on its data"),
        (lambda m, x: m.fc(x) + torch.rand(3), "random numbers"),
        (lambda m, x: torch.dropout(m.fc(x), 0.5, True), "training mode"),
        (lambda m, x: (m.fc(x), x), "one tensor"),
        (_counts, "its own parameters"),
        (_reads_a_slice_after_its_base_changed, "view of it is still in use"),
        (_writes_through_a_view, "view of it is still in use"),
    ],
)
def test_unrepairable_model_is_refused_with_the_reason(function: Any, words: str, tmp_path: Path) -> None:
    path = _export(Called(function).eval(), tmp_path / "m.pt2", torch.rand(2, 4), dynamic=function is not _branch)
    with pytest.raises(ModelUnsupported, match=words):
        read_pt2(path)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    class Two(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    with pytest.raises(ModelUnsupported, match="more than one input"):
        read_pt2(_export(Two(), tmp_path / "m.pt2", torch.rand(2, 4), torch.rand(2, 4), dynamic=False))


def test_in_place_chains_and_masks_made_in_the_graph_give_the_same(tmp_path: Path) -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        y = m.fc(x)
        y += 1
        y.relu_().mul_(2)
        mask = torch.zeros(3, 3)
        mask[:2, 1:] = 5.0
        mask[0].add_(torch.arange(3))
        return torch.nn.functional.hardtanh_(y @ mask) + torch.zeros(x.shape[0], 3)

    module, x = Called(function).eval(), torch.rand(4, 4)
    graph = read_pt2(_export(module, tmp_path / "m.pt2", x))
    with torch.no_grad():
        assert torch.equal(graph(x), module(x))
        assert torch.equal(graph(x), module(x))
    assert [n for n, _ in graph.named_buffers() if n.startswith("_folded")]


def test_writes_into_slices_are_put_back(tmp_path: Path) -> None:
    def function(m: Any, x: Tensor) -> Tensor:
        y, bias = m.fc(x), m.fc.bias.clone()
        bias[1:2].zero_()
        y[:, 0].mul_(2)
        y[:, 1:] = y[:, :2] + 1
        return y + bias

    module, x = Called(function).eval(), torch.rand(4, 4)
    graph = read_pt2(_export(module, tmp_path / "m.pt2", x))
    with torch.no_grad():
        assert torch.equal(graph(x), module(x))
    write_pt2(graph, tmp_path / "again.pt2", (4,))


def test_graph_follows_its_tensors_to_another_device(tmp_path: Path) -> None:
    module = Called(lambda m, x: m.fc(x) + torch.zeros(x.shape[0], 3) + torch.arange(3.0))
    graph = read_pt2(_export(module.eval(), tmp_path / "m.pt2", torch.rand(2, 4))).to("meta")
    assert graph(torch.empty(5, 4, device="meta")).shape == (5, 3)


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(program: dict[str, Any]) -> None:
        item: Any = program
        for key in path[:-1]:
            item = item[key]
        item[path[-1]] = value

    return edit


GRAPH = ("graph_module", "graph")
NODE = (*GRAPH, "nodes", 0)
INPUT = ("graph_module", "signature", "input_specs", 0)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_set("schema_version", value={"major": 7, "minor": 1}), "schema version 7"),
        (_set("schema_version", value={"major": 9, "minor": 0}), "schema version 9"),
        (_set(*NODE, "target", value="torch.ops.aten.from_file.default"), "allow-list"),
        (_set(*NODE, "target", value="torch.serialization.os.system"), "allow-list"),
        (_set(*NODE, "target", value="torch.ops.mine.custom.default"), "allow-list"),
        (_set(*NODE, "inputs", value=[]), "lacks its argument"),
        (_set(*NODE, "outputs", value=[]), "number of outputs"),
        (_set(*NODE, "outputs", value=[{"as_tensor": {"name": "a b"}}]), "no int|odd name"),
        (_set(*GRAPH, "custom_obj_values", value={"a": {}}), "custom objects"),
        (_set(*GRAPH, "nodes", value=[{}] * 30_000), "more than"),
        (_set(*INPUT, "parameter", "parameter_name", value="fc.weight; import os"), "name"),
        (_set(*INPUT, "parameter", "parameter_name", value="class.weight"), "name"),
        (_set(*INPUT, "parameter", "parameter_name", value="graph.weight"), "name"),
        (_set(*INPUT, "parameter", "parameter_name", value="fc.other"), "damaged"),
        (_set("graph_module", "signature", "input_specs", value=[]), "damaged|no input"),
        (_set("graph_module", value=[]), "damaged"),
        (_set("graph_module", value={}), "damaged"),
    ],
)
def test_damaged_or_foreign_graph_is_refused(edit: Any, words: str, clean: Path, tmp_path: Path) -> None:
    with pytest.raises((ModelRefused, ModelUnsupported), match=words):
        read_pt2(edited_graph(clean, tmp_path / "bad.pt2", edit))


def _tensor_entry(clean: Path, tmp_path: Path, **changes: Any) -> Path:
    target = tmp_path / "bad.pt2"
    with zipfile.ZipFile(clean) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("model_weights_config.json"):
                table = json.loads(content)
                entry = table["config"]["fc.weight"]
                for key, value in changes.items():
                    (entry if key in entry else entry["tensor_meta"])[key] = value
                content = json.dumps(table).encode()
            new.writestr(info.filename, content)
    return target


def _ints(*values: int) -> list[dict[str, int]]:
    return [{"as_int": v} for v in values]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sizes": _ints(1 << 30, 1 << 30), "strides": _ints(0, 0)}, "past the end of its bytes, or repeats"),
        ({"sizes": _ints(3, 4), "strides": _ints(1 << 20, 1)}, "past the end"),
        ({"sizes": _ints(3, 4), "strides": _ints(-4, 1)}, "bounded integer"),
        ({"sizes": _ints(-3, -4)}, "bounded integer"),
        ({"sizes": [{"as_expr": {"expr_str": "1"}}, {"as_int": 4}]}, "damaged description"),
        ({"storage_offset": {"as_int": 1}}, "past the end"),
        ({"dtype": 9}, "element types"),
        ({"layout": 1}, "dense"),
        ({"path_name": "../../etc/passwd"}, "record name"),
        ({"path_name": "weight_77"}, "missing"),
        ({"use_pickle": True}, "pickle"),
    ],
)
def test_damaged_tensor_is_refused(changes: dict[str, Any], words: str, clean: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match=words) as caught:
        read_pt2(_tensor_entry(clean, tmp_path, **changes))
    assert caught.value.where and caught.value.field


def test_graph_json_may_not_be_nested_without_end(clean: Path, tmp_path: Path) -> None:
    deep = b'{"graph_module":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    from tests.model.hostile import rewritten

    bad = rewritten(clean, tmp_path / "deep.pt2", lambda n, c: deep if n == "models/model.json" else c)
    with pytest.raises(ModelRefused, match="JSON"):
        read_pt2(bad)


def test_a_fixed_batch_size_is_read_when_the_graph_does_not_depend_on_it(tmp_path: Path) -> None:
    graph = read_pt2(_export(nn.Linear(4, 3).eval(), tmp_path / "m.pt2", torch.zeros(2, 4), dynamic=False))
    assert graph(torch.zeros(7, 4)).shape == (7, 3)
