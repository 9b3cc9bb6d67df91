"""Files that aim at time and memory: small to write, endless to read for a careless reader. None of them runs code."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.model.hostile import clean_pt2, edited_graph, rewritten

Program = dict[str, Any]


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _node(target: str, inputs: dict[str, Any], output: dict[str, Any]) -> dict[str, Any]:
    given = [{"name": name, "arg": arg, "kind": 1} for name, arg in inputs.items()]
    return {"target": target, "inputs": given, "outputs": [output], "metadata": {}}


def _tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def _clean(folder: Path) -> Path:
    return clean_pt2(folder / "clean.pt2")


def _output(program: Program) -> dict[str, Any]:
    """The entry that names the result, which an edit may let name another."""
    found: dict[str, Any] = program["graph_module"]["signature"]["output_specs"][0]["user_output"]["arg"]["as_tensor"]
    return found


def _nodes(program: Program) -> list[Any]:
    nodes: list[Any] = program["graph_module"]["graph"]["nodes"]
    return nodes


def squared_batch(folder: Path) -> Path:
    """The batch size squared 64 times: one number of 2**64 digits."""

    def edit(program: Program) -> None:
        nodes = _nodes(program)
        at = next(i for i, n in enumerate(nodes) if n["target"] == "_operator.mul")
        name = nodes[at]["outputs"][0]["as_sym_int"]["as_name"]
        made = []
        for k in range(64):
            operand = {"as_sym_int": {"as_name": f"b{k - 1}" if k else name}}
            inputs = [{"name": "", "arg": operand, "kind": 1}] * 2
            made.append(_node("_operator.mul", {}, {"as_sym_int": {"as_name": f"b{k}"}}) | {"inputs": inputs})
        later = json.dumps(nodes[at + 1 :]).replace(f'"as_name": "{name}"', '"as_name": "b63"')
        nodes[at + 1 :] = made + json.loads(later)

    return edited_graph(_clean(folder), folder / "squared.pt2", edit)


def endless_expression(folder: Path) -> Path:
    """A symbolic expression that takes a backtracking pattern the square of its length."""

    def edit(program: Program) -> None:
        program["graph_module"]["graph"]["sym_int_values"]["z"] = {"as_expr": {"expr_str": "a" * 300_000}}

    return edited_graph(_clean(folder), folder / "endless.pt2", edit)


def many_expressions(folder: Path) -> Path:
    def edit(program: Program) -> None:
        values = {f"z{i}": {"as_expr": {"expr_str": f"!{i % 5000}"}} for i in range(60_000)}
        program["graph_module"]["graph"]["sym_int_values"] = values

    return edited_graph(_clean(folder), folder / "many.pt2", edit)


def nothing_but_lists(folder: Path) -> Path:
    """Three bytes of JSON each cost sixty of memory."""
    text = b'{"a":[' + b"[]," * 10_000_000 + b"1]}"
    return rewritten(_clean(folder), folder / "lists.pt2", lambda n, c: text if n == "models/model.json" else c)


def empty_and_vast(folder: Path) -> Path:
    """No element, and strides past 64 bits."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("model_weights_config.json"):
            return content
        table = json.loads(content)
        meta = table["config"]["fc.weight"]["tensor_meta"]
        meta["sizes"] = [{"as_int": 0}] + [{"as_int": (1 << 40) - 1}] * 4
        meta["strides"] = [{"as_int": 1}] * 5
        return json.dumps(table).encode()

    return rewritten(_clean(folder), folder / "vast.pt2", change)


def vast_input(folder: Path) -> Path:
    def edit(program: Program) -> None:
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[1:] = [{"as_int": (1 << 31) - 1}] * 4

    return edited_graph(_clean(folder), folder / "input.pt2", edit)


def _constant(folder: Path, target: str, inputs: dict[str, Any], *sizes: list[int]) -> Path:
    """A file with one operator on constants ``o0``, ``o1``, ... of ones."""

    def edit(program: Program) -> None:
        nodes = _nodes(program)
        for k, size in enumerate(sizes):
            nodes.append(_node("torch.ops.aten.ones.default", {"size": {"as_ints": size}}, _tensor(f"o{k}")))
        nodes.append(_node(f"torch.ops.aten.{target}", inputs, _tensor("folded")))

    return edited_graph(_clean(folder), folder / "constant.pt2", edit)


def folded_convolution(folder: Path) -> Path:
    """Hours of work between three tensors that are small enough."""
    inputs = {"input": _tensor("o0"), "weight": _tensor("o1")}
    return _constant(folder, "conv2d.default", inputs, [1, 1, 4000, 4000], [1, 1, 2000, 2000])


def folded_pooling(folder: Path) -> Path:
    inputs = {"self": _tensor("o0"), "kernel_size": {"as_ints": [2000, 2000]}, "stride": {"as_ints": [1, 1]}}
    return _constant(folder, "max_pool2d.default", inputs, [1, 1, 4000, 4000])


def folded_product(folder: Path) -> Path:
    """Broadcasting copies both sides: 64 GB between two tensors of 64 MB and a result of 4 MB."""
    inputs = {"self": _tensor("o0"), "other": _tensor("o1")}
    return _constant(folder, "matmul.default", inputs, [1024, 1, 1, 16384], [1, 1024, 16384, 1])


def hungry_product(folder: Path) -> Path:
    """The same at inference: every node is small, what happens inside one is not."""

    def edit(program: Program) -> None:
        nodes, output = _nodes(program), _output(program)
        steps: list[tuple[str, str, dict[str, Any]]] = [
            ("repeat.default", "q0", {"self": _tensor(output["name"]), "repeats": {"as_ints": [1, 4000]}}),
            ("unsqueeze.default", "q1", {"self": _tensor("q0"), "dim": {"as_int": 2}}),
            ("unsqueeze.default", "q2", {"self": _tensor("q1"), "dim": {"as_int": 3}}),
            ("repeat.default", "q3", {"self": _tensor("q2"), "repeats": {"as_ints": [1, 1, 1, 2000]}}),
            ("transpose.int", "q4", {"self": _tensor("q3"), "dim0": {"as_int": 2}, "dim1": {"as_int": 3}}),
            ("unsqueeze.default", "q5", {"self": _tensor("q3"), "dim": {"as_int": 1}}),
            ("unsqueeze.default", "q6", {"self": _tensor("q4"), "dim": {"as_int": 2}}),
            ("matmul.default", "q7", {"self": _tensor("q5"), "other": _tensor("q6")}),
            ("amax.default", "q8", {"self": _tensor("q7"), "dim": {"as_ints": [2, 3, 4]}}),
        ]
        nodes += [_node(f"torch.ops.aten.{target}", inputs, _tensor(name)) for target, name, inputs in steps]
        output["name"] = "q8"

    return edited_graph(_clean(folder), folder / "hungry.pt2", edit)


def many_constants(folder: Path) -> Path:
    def edit(program: Program) -> None:
        specs = program["graph_module"]["signature"]["input_specs"]
        for k in range(100_000):
            specs.append({"tensor_constant": {"arg": {"name": f"k{k}"}, "tensor_constant_name": "fc.weight"}})

    return edited_graph(_clean(folder), folder / "constants.pt2", edit)


def many_writes(folder: Path) -> Path:
    """Constants that are each overwritten with something that depends on the input."""

    def edit(program: Program) -> None:
        nodes, name = _nodes(program), _output(program)["name"]
        size = {"size": {"as_ints": [3]}}
        nodes += [_node("torch.ops.aten.zeros.default", size, _tensor(f"c{k}")) for k in range(3000)]
        for k in range(3000):
            inputs = {"self": _tensor(f"c{k}"), "src": _tensor(name)}
            nodes.append(_node("torch.ops.aten.copy_.default", inputs, _tensor(f"w{k}")))

    return edited_graph(_clean(folder), folder / "writes.pt2", edit)


def _pickled(folder: Path, content: bytes) -> Path:
    (folder / "m.pth").write_bytes(content)
    return folder / "m.pth"


def deep_key(folder: Path) -> Path:
    """A dictionary key of 200,000 tuples in each other: hashing it overflows the stack."""
    return _pickled(folder, b"\x80\x04}N" + b"\x85" * 200_000 + b"K\x01s.")


def wide_key(folder: Path) -> Path:
    """A key of pairs of one pair of one pair ...: 2**60 leaves to hash."""
    return _pickled(folder, b"\x80\x04}N" + b"2\x86" * 60 + b"K\x01s.")


def deep_storage_key(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "m.pth", "w") as out:
        key = b"N" + b"\x85" * 200_000
        storage = b"\x80\x02(" + _text("storage") + b"ctorch\nFloatStorage\n" + key + _text("cpu") + b"K\x04tQ."
        out.writestr("m/data.pkl", storage)
        out.writestr("m/data/0", bytes(16))
    return folder / "m.pth"


def shared_modules(folder: Path) -> Path:
    """Forty modules, each of which holds the one before it twice: 2**40 to walk."""

    def module(children: bytes) -> bytes:
        groups = _text("_parameters") + b"}" + _text("_buffers") + b"}" + _text("_modules") + children
        return b"cM\nM\n)\x81}(" + groups + b"ub"

    content = b"\x80\x02" + module(b"}") + b"q\x000"
    for k in range(1, 41):
        before = b"h" + bytes([k - 1])
        content += module(b"}(" + _text("a") + before + _text("b") + before + b"u") + b"q" + bytes([k]) + b"0"
    return _pickled(folder, content + b"h" + bytes([40]) + b".")


def nested_bytes(folder: Path) -> Path:
    """A thousand tensors that point at one nested pickle of 200,000 opcodes."""
    buffer = io.BytesIO()
    torch.save(torch.zeros(1)._typed_storage(), buffer, _use_new_zipfile_serialization=False)
    slow = buffer.getvalue()
    at = slow.index(b"\x80\x02", 20)
    at = slow.index(b"\x80\x02", at + 2)
    inner = slow[: at + 2] + b"K\x010" * 100_000 + slow[at + 2 :]
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(h\x01h\x00\x85RK\x00)K\x01\x85\x89NtR"
    content = b"\x80\x04B" + struct.pack("<I", len(inner)) + inner + b"q\x000ctorch.storage\n_load_from_bytes\nq\x010}("
    content += b"".join(_text(f"w{k}") + tensor for k in range(1000))
    return _pickled(folder, content + b"u.")


def _tar(folder: Path, parts: dict[str, bytes]) -> Path:
    with tarfile.open(folder / "old.tar", "w") as tar:
        for name, content in parts.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return folder / "old.tar"


def views_of_a_storage(folder: Path) -> Path:
    """Two thousand views of 8 MB, which are 16 GB when each is a copy."""
    size = 8 << 20
    one = b"\x80\x02(I5\nX\x03\x00\x00\x00cpuctorch\nByteStorage\nt." + struct.pack("<q", size) + bytes(size)
    view = b"K\x05K\x00J" + struct.pack("<i", size) + b"t"
    views = b"".join(b"(M" + struct.pack("<H", 6 + k) + view for k in range(2000))
    storages = pickle.dumps(1, 2) + one + b"\x80\x02](" + views + b"e."
    return _tar(folder, {"storages": storages, "tensors": pickle.dumps(0, 2), "pickle": pickle.dumps({}, 2)})


def chain_of_long_names(folder: Path) -> Path:
    """Five thousand tar headers that each announce a longer name for the next: a recursion in ``tarfile``."""
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 1
    (folder / "chain.tar").write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b"a" + bytes(511)) * 5000)
    return folder / "chain.tar"


LOADS = {"endless expression", "many expressions", "many writes"}
"""Those that stay proper models; the others are refused."""

NASTY: dict[str, Callable[[Path], Path]] = {
    f.__name__.replace("_", " "): f
    for f in (
        squared_batch, endless_expression, many_expressions, nothing_but_lists, empty_and_vast, vast_input,
        folded_convolution, folded_pooling, folded_product, hungry_product, many_constants, many_writes,
        deep_key, wide_key, deep_storage_key, shared_modules, nested_bytes, views_of_a_storage, chain_of_long_names,
    )
}  # fmt: skip
