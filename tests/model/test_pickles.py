from __future__ import annotations

import io
import pickle
import struct
import tarfile
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modelmend.errors import ModelRefused, ModelUnsupported
from modelmend.model import pickles
from modelmend.model.lift import Lifter
from modelmend.model.pickles import Global, Stub, read_pickle
from modelmend.model.torchfile import read_torch_file
from tests.model.zoo import ZOO


def _state_dict(path: Path) -> tuple[dict[str, torch.Tensor], str]:
    return Lifter(read_torch_file(path), path, 1 << 28).state_dict()


def _pickle(value: Any, path: Path) -> None:
    with path.open("wb") as stream:
        pickle.dump(value, stream)


def _cloudpickled(value: Any, path: Path) -> None:
    torch.save(value, path, pickle_module=pytest.importorskip("cloudpickle"))


WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "zip": torch.save,
    "legacy": lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
    "bare pickle": _pickle,
    "cloudpickle, as MLflow": _cloudpickled,
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("name", ["resnet8", "swin", "text"])
def test_every_tensor_is_lifted_as_the_stock_loader_gives_it(
    name: str, whole: bool, writer: str, tmp_path: Path
) -> None:
    module = ZOO[name].module()
    expected = module.state_dict()
    WRITERS[writer](module if whole else expected, tmp_path / "m.pth")
    found, _ = _state_dict(tmp_path / "m.pth")
    assert list(found) == list(expected)
    assert all(torch.equal(found[n], expected[n]) and found[n].dtype == expected[n].dtype for n in expected)


def test_weights_only_load_of_torch_agrees(tmp_path: Path) -> None:
    tensors = {
        f"{dtype}".removeprefix("torch."): (torch.arange(6).reshape(2, 3) % 2).to(dtype)
        for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.bool, torch.int64)
    }
    tensors |= {"view": torch.arange(12.0).reshape(3, 4)[:, 1:3].t(), "empty": torch.empty(0, 3)}
    torch.save(tensors, tmp_path / "m.pth")
    stock = torch.load(tmp_path / "m.pth", weights_only=True)
    found, _ = _state_dict(tmp_path / "m.pth")
    assert all(torch.equal(found[n], stock[n]) and found[n].dtype == stock[n].dtype for n in tensors)
    assert found["view"].untyped_storage().nbytes() <= 24


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_weights_are_found_inside_a_checkpoint(key: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, key: OrderedDict(a=torch.ones(2))}, tmp_path / "m.pth")
    found, place = _state_dict(tmp_path / "m.pth")
    assert (list(found), place) == (["a"], key)


def test_tar_container_of_2017_is_read(tmp_path: Path) -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]

    class Float:
        def __reduce__(self) -> str:
            return "FloatStorage"

    def pickled(value: Any) -> bytes:
        return pickle.dumps(value, protocol=2)

    class Pickler(pickle._Pickler):  # type: ignore[misc]
        def persistent_id(self, obj: Any) -> Any:
            return "77" if isinstance(obj, torch.Tensor) else None

    storage = b"\x80\x02(I5\nX\x03\x00\x00\x00cpuctorch\nFloatStorage\nt."
    tensor = b"\x80\x02(I77\nI5\nctorch\nFloatTensor\nt."
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"w": torch.zeros(1)})
    parts = {
        "sys_info": pickled({}),
        "storages": pickled(1) + storage + struct.pack("<q6f", 6, *values) + pickled([]),
        "tensors": pickled(1) + tensor + struct.pack("<i4x2q2qq", 2, 2, 2, 3, 1, 1),
        "pickle": buffer.getvalue(),
    }
    path = tmp_path / "old.pth"
    with tarfile.open(path, "w") as tar:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    found, _ = _state_dict(path)
    assert torch.equal(found["w"], torch.tensor([[2.0, 3.0], [5.0, 6.0]]))
    assert torch.equal(found["w"], torch.load(path, weights_only=False)["w"])


def test_classes_stay_stubs() -> None:
    found = read_pickle(io.BytesIO(pickle.dumps(Path("/etc"))), "x")
    assert isinstance(found.value, Stub)
    assert isinstance(found.value.made_by, Global)
    assert found.value.made_by.module.startswith("pathlib")
    assert list(found.called) == list(found.names)


def test_unhashable_and_foreign_keys_do_no_harm() -> None:
    stream = b"\x80\x04}(cos\nsystem\n)RK\x01K\x02K\x03u."
    found = read_pickle(io.BytesIO(stream), "x")
    assert sorted(map(str, found.value.values())) == ["1", "3"]


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "cut short|damaged"),
        (b"\x80\x04K\x01", "cut short|damaged"),
        (b"\x80\x04.", "damaged"),
        (b"\x80\x04h\x05.", "damaged"),
        (b"\x80\x04(t(R.", "damaged"),
        (b"\x80\x04\x82\x01.", "EXT1"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"\x80\x04K\x01Q.", "persistent"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b".", "damaged"),
        (b"\x80\x04" + b"I" + b"9" * 6000 + b"\n.", "damaged"),
    ],
)
def test_damaged_or_hungry_pickle_is_refused(stream: bytes, words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        read_pickle(io.BytesIO(stream), "x")


def test_number_of_opcodes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_OPCODES", 100)
    with pytest.raises(ModelRefused, match="too many opcodes"):
        read_pickle(io.BytesIO(b"\x80\x04K\x01" + b"2" * 200 + b"."), "x")


@pytest.mark.parametrize("opcode", [b"\x8d", b"\x8e", b"\x96", b"X", b"B", b"\x8b", b"T"])
def test_claimed_length_reserves_no_memory(opcode: bytes, tmp_path: Path) -> None:
    size = struct.pack("<Q" if opcode in (b"\x8d", b"\x8e", b"\x96") else "<I", 0x7FFFFFF0)
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04" + opcode + size + b"abc.")
    tracemalloc.start()
    try:
        with pytest.raises(ModelRefused):
            _state_dict(tmp_path / "m.pkl")
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


def test_billion_laughs_cost_nothing(tmp_path: Path) -> None:
    stream = b"\x80\x04]\x94K\x01a" + b"".join(
        b"]\x94" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86a" for i in range(60)
    )
    (tmp_path / "m.pkl").write_bytes(stream + b".")
    with pytest.raises(ModelUnsupported, match="no named tensors"):
        _state_dict(tmp_path / "m.pkl")


def test_module_that_contains_itself_is_refused(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    module._modules["again"] = module
    torch.save(module, tmp_path / "m.pth")
    with pytest.raises(ModelRefused, match="nested"):
        _state_dict(tmp_path / "m.pth")


def _entry(kind: bytes, sizes: bytes, strides: bytes, offset: bytes = b"K\x00") -> bytes:
    storage = b"((X\x07\x00\x00\x00storagectorch\n" + kind + b"\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + storage + offset + sizes + strides + b"\x89NtR"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (_entry(b"FloatStorage", b"J\xff\xff\xff\x7f\x85", b"K\x00\x85"), "repeats"),
        (_entry(b"FloatStorage", b"K\x05\x85", b"K\x01\x85"), "past the end"),
        (_entry(b"FloatStorage", b"K\x02\x85", b"J\xff\xff\xff\xff\x85"), "bounded integer"),
        (_entry(b"FloatStorage", b"K\x02\x85", b"K\x01\x85", b"K\x03"), "past the end"),
        (_entry(b"FloatStorage", b"X\x01\x00\x00\x00a\x85", b"K\x01\x85"), "bounded integer"),
        (_entry(b"QInt8Storage", b"K\x02\x85", b"K\x01\x85"), "unknown storage"),
    ],
)
def test_description_of_a_tensor_that_lies_is_refused(entry: bytes, words: str, tmp_path: Path) -> None:
    import zipfile

    content = b"\x80\x02}X\x01\x00\x00\x00w" + entry + b"s."
    with zipfile.ZipFile(tmp_path / "m.pth", "w") as out:
        out.writestr("m/data.pkl", content)
        out.writestr("m/data/0", bytes(16))
    with pytest.raises(ModelRefused, match=words):
        _state_dict(tmp_path / "m.pth")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "m.pt")
    with pytest.raises(ModelUnsupported, match="TorchScript"):
        _state_dict(tmp_path / "m.pt")
