"""Reads a ``.pt2`` archive of ``torch.export.save`` as data: nothing in the file is executed or unpickled."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch.fx import GraphModule

from modelmend.errors import ModelRefused, ModelUnsupported
from modelmend.model.archive import Archive
from modelmend.model.arguments import DTYPES, BadArgument
from modelmend.model.build import Builder
from modelmend.model.payload import parse_json, read_tensors, valid_fqn

SCHEMA_MAJOR = 8
"""The graph schema that is read: torch 2.13 writes 8.20, with raw (not pickled) tensors."""
MAX_NODES = 20_000

MODEL = "models/model.json"
_TEXT = {
    "archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id", ".format_version",
    ".data/.format_version", ".storage_alignment", ".data/.storage_alignment",
}  # fmt: skip
_TENSOR_FILES = re.compile(
    r"data/weights/(weight_\d{1,6}|model_weights_config\.json)"
    r"|data/constants/(tensor_\d{1,6}|model_constants_config\.json)"
)
SAMPLE_INPUTS = "data/sample_inputs/model.pt"
"""A pickle that every archive holds; it is never opened."""


def read_pt2(path: str | Path) -> GraphModule:
    """Read a model as torch 2.13 exports it (archive version 0, graph schema 8), without running any of it.

    The zip members, the JSON fields, operators, element types and names are all on allow-lists; sizes, counts and
    nesting are bounded. In-place operators become pure ones, shape assertions are dropped, parts of the graph that
    do not depend on the input are folded into buffers named ``_folded_<n>``.

    Args:
        path: The file.

    Returns:
        The model form in eval mode: one placeholder ``x`` (its ``meta`` holds ``shape`` with ``None`` for the batch
        axis, and ``dtype``), parameters and buffers under their original dotted names, one tensor out. Nodes hold
        the dotted path of their layer in ``meta["module"]``.

    Raises:
        ModelRefused: The file breaks a rule of the reader.
        ModelUnsupported: The file is a proper export, but of a model that cannot be repaired.
    """
    path = Path(path)
    with Archive(path) as archive:
        for name in archive.members:
            if not expected(name):
                raise ModelRefused(
                    "the archive holds a part that no plain export has", where=path, field=name,
                    fix="export again without extra files, custom objects or compiled code",
                )  # fmt: skip
        program = parse_json(archive, MODEL)
        _check_version(archive, program)
        weights, constants = read_tensors(archive, "weights"), read_tensors(archive, "constants")
    try:
        return _build(path, program["graph_module"], weights, constants)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise ModelRefused(
            f"the graph is damaged ({type(error).__name__}: {str(error)[:120]})", where=path, field=MODEL
        ) from error
    except ModelRefused as error:
        error.where = str(path)
        raise


def write_pt2(graph: GraphModule, path: str | Path, input_shape: tuple[int, ...]) -> None:
    """See `modelmend.model.write.write_pt2`."""
    from modelmend.model.write import write_pt2 as write

    write(graph, path, input_shape)


def expected(member: str) -> bool:
    """Whether a plain export has this part."""
    return member in _TEXT or member in (MODEL, SAMPLE_INPUTS) or bool(_TENSOR_FILES.fullmatch(member))


def _check_version(archive: Archive, program: dict[str, Any]) -> None:
    version = program.get("schema_version")
    major = version.get("major") if isinstance(version, dict) else None
    order = bytes(archive.read("byteorder", 16)) if "byteorder" in archive.members else b"little"
    if bytes(archive.read("archive_format", 16)) != b"pt2" or bytes(archive.read("archive_version", 16)) != b"0":
        raise ModelRefused("this is no export archive of version 0", where=archive.path, field="archive_version")
    if major != SCHEMA_MAJOR or order != b"little":
        raise ModelUnsupported(
            f"the graph has schema version {str(major)[:20]}, byte order {order.decode('ascii', 'replace')}; "
            f"schema {SCHEMA_MAJOR}, little-endian is read",
            where=archive.path, field="schema_version", fix="export the model again with torch 2.13",
        )  # fmt: skip


def _build(path: Path, module: dict[str, Any], weights: dict[str, Any], constants: dict[str, Any]) -> GraphModule:
    graph, signature = module["graph"], module["signature"]
    if graph.get("custom_obj_values") or module.get("treespec_namedtuple_fields"):
        raise ModelRefused("the graph refers to custom objects", where=path, field="custom_obj_values")
    if max(len(graph["nodes"]), len(signature["input_specs"])) > MAX_NODES:
        raise ModelRefused(f"the graph has more than {MAX_NODES} nodes or inputs", where=path, field="nodes")
    dtypes = {name: DTYPES[m["dtype"]] for name, m in graph["tensor_values"].items() if m["dtype"] in DTYPES}
    builder = Builder(path, dtypes)
    for spec in signature["input_specs"]:
        _add_input(builder, spec, graph["tensor_values"], weights, constants)
    for entry in graph["nodes"]:
        try:
            builder.node(entry, _module_path(entry))
        except BadArgument as error:
            error.field = str(entry.get("name") or entry["target"])[:120]
            raise
    return builder.output(_output(path, signature["output_specs"]))


def _add_input(
    builder: Builder, spec: dict[str, Any], metas: dict[str, Any], weights: dict[str, Any], constants: dict[str, Any]
) -> None:
    ((kind, value),) = spec.items()
    if kind == "user_input":
        ((form, inner),) = value["arg"].items()
        if form != "as_tensor":
            raise ModelUnsupported(f"the model takes an input that is no tensor ({form})", field="signature")
        builder.input(inner["name"], _shape(metas[inner["name"]]["sizes"]))
        return
    if kind not in ("parameter", "buffer", "tensor_constant"):
        raise ModelRefused(f"the model has an input of kind {kind[:40]!r}", field="signature")
    fqn, name = value[f"{kind}_name"], value["arg"]["name"]
    if not valid_fqn(fqn):
        raise ModelRefused("a tensor has a name that cannot be used", field=str(fqn)[:200])
    tensor, _ = weights[fqn] if fqn in weights else constants[fqn]
    if kind == "tensor_constant":
        builder.constant(name, tensor)
    else:
        builder.parameter(
            name, fqn, tensor, trainable=kind == "parameter", persistent=value.get("persistent", True) is True
        )


def _shape(sizes: list[dict[str, Any]]) -> tuple[int | None, ...]:
    """Sizes of the input; a symbolic one is ``None``, its expression is not looked at."""
    out: list[int | None] = []
    for size in sizes[:8]:
        value = size.get("as_int")
        out.append(value if type(value) is int and 0 <= value < 1 << 31 else None)
    return (None, *out[1:]) if out else ()


def _output(path: Path, specs: list[dict[str, Any]]) -> str:
    if len(specs) != 1 or set(specs[0]) != {"user_output"} or "as_tensor" not in specs[0]["user_output"]["arg"]:
        kinds = ", ".join(sorted({str(kind)[:40] for spec in specs for kind in spec}))
        raise ModelUnsupported(
            f"the model must return one tensor of class scores; it has {len(specs)} outputs ({kinds})",
            where=path, field="signature", fix="export a wrapper that returns the logits only",
        )  # fmt: skip
    name = specs[0]["user_output"]["arg"]["as_tensor"]["name"]
    if not isinstance(name, str):
        raise TypeError("output name")
    return name


def _module_path(entry: dict[str, Any]) -> str:
    """Dotted path of the innermost layer that a node comes from; empty when the file does not say it plainly."""
    stack = (entry.get("metadata") or {}).get("nn_module_stack", "")
    parts = str(stack).rpartition(";")[2].split(",")
    path = parts[1].partition("@")[0] if len(parts) == 3 else ""
    return path if valid_fqn(path) else ""
