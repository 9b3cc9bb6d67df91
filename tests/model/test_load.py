from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from modelmend.errors import InputError, ModelmendError, ModelRefused, ModelUnsupported
from modelmend.model.architectures import ARCHITECTURES
from modelmend.model.hashing import content_hash
from modelmend.model.load import load
from modelmend.model.outputs import outputs_probabilities
from modelmend.model.pt2 import read_pt2
from tests.model.hostile import Net, edited_graph
from tests.model.zoo import ZOO


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return ZOO["cnn_small"].module()


@pytest.fixture(scope="module")
def forms(small: nn.Module, exported: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same small network in every form; `mlflow/...` are model directories."""
    folder = tmp_path_factory.mktemp("forms")
    made = {name: folder / f"{name}.x" for name in ("pt2", "safetensors", "state_dict", "pickle")}
    shutil.copy(exported("cnn_small")[0], made["pt2"])
    save_file(small.state_dict(), made["safetensors"])
    torch.save(small.state_dict(), made["state_dict"])
    torch.save(small, made["pickle"])
    for name, file in (("pt2", "model.pt2"), ("pickle", "model.pth")):
        data = folder / f"mlflow_{name}" / "data"
        data.mkdir(parents=True)
        shutil.copy(made[name], data / file)
        (data.parent / "MLmodel").write_text("flavors: {}\n")
        made[f"mlflow/{name}"] = data.parent
    return made


@pytest.mark.parametrize("form", ["pt2", "safetensors", "state_dict", "pickle", "mlflow/pt2", "mlflow/pickle"])
def test_one_model_has_one_content_hash_in_every_form(form: str, forms: dict[str, Path]) -> None:
    extra = {} if form.endswith("pt2") else {"arch": "cnn_small", "input_shape": (1, 8, 8)}
    loaded = load(forms[form], **extra)
    assert (loaded.format, loaded.input_shape, loaded.num_classes) == (form, (1, 8, 8), 5)
    assert content_hash(loaded.graph) == content_hash(read_pt2(forms["pt2"]))
    assert loaded.file_hash.startswith("sha256:")
    assert bool(loaded.findings) == form.endswith("pickle")


def test_import_path_of_trusted_code_gives_the_architecture(tmp_path: Path) -> None:
    torch.save({f"module.{n}": t for n, t in Net().state_dict().items()}, tmp_path / "m.pth")
    assert load(tmp_path / "m.pth", arch="tests.model.hostile:Net", input_shape=(4,)).num_classes == 3


def test_half_precision_weights_stay_half(tmp_path: Path) -> None:
    torch.save(Net().half().state_dict(), tmp_path / "m.pth")
    graph = load(tmp_path / "m.pth", arch="tests.model.hostile:Net", input_shape=(4,)).graph
    assert {p.dtype for p in graph.parameters()} == {torch.float16}


@pytest.mark.parametrize("name", ["cnn_small", "vit_tiny"])
def test_number_of_classes_of_a_builtin_comes_from_the_weights(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = ARCHITECTURES[name](1, 7, 8)
    save_file(module.state_dict(), tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors", arch=name, input_shape=(1, 8, 8)).num_classes == 7


@pytest.mark.parametrize(
    ("form", "arguments", "kind", "words"),
    [
        ("state_dict", {}, InputError, "needs an architecture"),
        ("state_dict", {"arch": "cnn_small"}, InputError, "input's shape"),
        ("state_dict", {"arch": "cnn_smal", "input_shape": (1, 8, 8)}, InputError, "use one of cnn_small"),
        ("state_dict", {"arch": "cnn_small", "input_shape": (8,)}, InputError, "square images"),
        ("state_dict", {"arch": "no.such:thing", "input_shape": (1, 8, 8)}, InputError, "cannot import"),
        ("state_dict", {"arch": "os:getcwd", "input_shape": (1, 8, 8)}, InputError, "not a torch module"),
        (
            "state_dict",
            {"arch": "tests.model.hostile:Net", "input_shape": (4,)},
            ModelUnsupported,
            "'fc.weight' has shape",
        ),
        ("state_dict", {"arch": "resnet8", "input_shape": (1, 8, 8)}, ModelUnsupported, "in the file only"),
        ("pt2", {"input_shape": (1, 9, 9)}, InputError, "samples of shape"),
        ("pt2", {"input_shape": (2, 1, 8, 8)}, InputError, "samples of shape"),
        ("pt2", {"num_classes": 10}, InputError, "5 classes, not 10"),
    ],
)
def test_wrong_arguments_are_answered_with_what_to_do(
    form: str, arguments: dict[str, Any], kind: type[ModelmendError], words: str, forms: dict[str, Path]
) -> None:
    with pytest.raises(kind, match=words):
        load(forms[form], **arguments)


def test_misspelt_names_are_listed_with_the_nearest(tmp_path: Path) -> None:
    tensors = Net().state_dict()
    torch.save({"fc.wieght": tensors["fc.weight"], "fc.bias": tensors["fc.bias"]}, tmp_path / "m.pth")
    with pytest.raises(ModelUnsupported, match=r"'fc.wieght' is in the file only \(nearest: 'fc.weight'"):
        load(tmp_path / "m.pth", arch="tests.model.hostile:Net", input_shape=(4,))


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such file"), (b"", "empty"), (b"hello, world\n" * 9, "no model file")]
)
def test_what_is_no_model_is_named(content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "m.pt2").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load(tmp_path / "m.pt2")
    assert caught.value.where == str(tmp_path / "m.pt2")


def test_directory_without_a_model_or_with_two_is_refused(forms: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model file"):
        load(tmp_path)
    shutil.copy(forms["pt2"], tmp_path / "model.pt2")
    shutil.copy(forms["pickle"], tmp_path / "model.pth")
    with pytest.raises(ModelRefused, match="more than one"):
        load(tmp_path)


def test_link_out_of_the_directory_is_refused(forms: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "model.pt2").symlink_to(forms["pt2"])
    with pytest.raises(ModelRefused, match="link"):
        load(tmp_path)


def test_mlflow_directory_changes_nothing_in_the_interpreter(forms: dict[str, Path]) -> None:
    import sys

    folder = forms["mlflow/pt2"]
    (folder / "code").mkdir(exist_ok=True)
    (folder / "code" / "planted.py").write_text("raise SystemExit")
    (folder / "MLmodel").write_text(
        "flavors:\n  pytorch:\n    code: code\n  python_function:\n    loader_module: planted\n"
    )
    before = list(sys.path)
    kinds = {finding["kind"] for finding in load(folder).findings}
    assert sys.path == before
    assert "planted" not in sys.modules
    assert kinds == {"code", "code reference"}


def _sizes(program: dict[str, Any], numbers: list[int]) -> None:
    for node in program["graph_module"]["graph"]["nodes"]:
        if node["target"] == "torch.ops.aten.reshape.default":
            node["target"] = "torch.ops.aten.repeat.default"
            node["inputs"][1] = {"name": "repeats", "arg": {"as_ints": numbers}, "kind": 1}


def test_graph_that_would_fill_the_memory_is_refused_before_it_runs(clean: Path, tmp_path: Path) -> None:
    path = edited_graph(clean, tmp_path / "hungry.pt2", lambda p: _sizes(p, [1, 1 << 33]))
    with pytest.raises(ModelRefused, match="too much memory"):
        load(path)


def test_graph_that_does_not_fit_its_input_is_refused_in_words(clean: Path, tmp_path: Path) -> None:
    path = edited_graph(clean, tmp_path / "odd.pt2", lambda p: _sizes(p, [1, 3]))
    with pytest.raises(ModelUnsupported, match="does not run on a batch of 2"):
        load(path)


@pytest.mark.parametrize(("name", "answer"), [("signal", True), ("mlp", False), ("cnn_small", False)])
def test_final_softmax_is_detected(name: str, answer: bool, exported: Any) -> None:
    assert outputs_probabilities(read_pt2(exported(name)[0]), ZOO[name].shape) is answer


def test_probabilities_without_a_softmax_node_are_detected(tmp_path: Path) -> None:
    class Ratio(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weights = super().forward(x).exp()
            return weights / weights.sum(1, keepdim=True)

    from modelmend.model.export import export_module

    assert outputs_probabilities(export_module(Ratio(), (4,)), (4,))
