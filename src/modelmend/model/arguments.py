"""One argument of one node, from the file's JSON to a value that the operator's own schema allows."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx import Node

from modelmend.errors import ModelRefused
from modelmend.model.names import Value

DTYPES: dict[int, torch.dtype] = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""The file's number of an element type (schema 8) to the type."""

_MEMORY = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
_STRINGS = frozenset(
    {"none", "tanh", "constant", "reflect", "replicate", "circular", "floor", "valid", "same", "mean", "sum"}
)
_EQUATION = re.compile(r"[A-Za-z. ]{0,32}(,[A-Za-z. ]{0,32}){0,3}(->[A-Za-z. ]{0,32})?")
_WORDS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
_MAX_LIST = 4096
_TAKES_NUMBERS = "add sub rsub mul div eq ne lt le gt ge maximum minimum bitwise_and bitwise_or where"
"""Operators whose tensor overload also takes a plain number as a further operand."""

Environment = Mapping[str, Value]
"""Names in the file to what they stand for, so far."""


class BadArgument(ModelRefused):
    """An argument is not of a kind that its operator takes."""


def bind(op: OpOverload, inputs: object, env: Environment, named: OpOverload | None = None) -> dict[str, Any]:
    """All arguments of a node by schema name.

    Args:
        op: The operator; its schema decides which names and types are allowed.
        inputs: The node's ``inputs`` list in the file.
        env: What the names in the file stand for.
        named: The operator that the file names, when that is the in-place form of ``op``; it may call its arguments
            otherwise, in the same order.

    Returns:
        Schema name to value: numbers, lists, types, nodes and known tensors; arguments that name a device, a layout or
        pinned memory are left out, because the model runs wherever its tensors are.

    Raises:
        BadArgument: Unknown or repeated name, missing argument, wrong type.
    """
    schema = {a.name: a for a in op._schema.arguments}
    names = dict(zip((a.name for a in (named or op)._schema.arguments), schema, strict=True))
    packet = str(op).split(".")[1]
    values: dict[str, Any] = {}
    if not isinstance(inputs, list) or len(inputs) > len(schema):
        raise BadArgument(f"{op} has a damaged argument list", field="graph")
    for entry in inputs:
        stated = entry.get("name") if isinstance(entry, dict) else None
        name = names.get(stated) if isinstance(stated, str) else None
        if name is None or name in values:
            raise BadArgument(f"{op} has no argument {str(stated)[:60]!r}, or has it twice", field="graph")
        declared = str(schema[name].real_type)
        try:
            if declared == "Tensor" and values and packet in _TAKES_NUMBERS.split() and "as_tensor" not in entry["arg"]:
                declared = "number"
            values[name] = _value(entry["arg"], declared, env)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadArgument(f"argument {name} of {op} is not a {declared}", field="graph") from error
    missing = [a.name for a in op._schema.arguments if not a.has_default_value() and a.name not in values]
    if missing:
        raise BadArgument(f"{op} lacks its argument {missing[0]}", field="graph")
    return {name: value for name, value in values.items() if not _is_placement(str(schema[name].real_type), name)}


def arrange(op: OpOverload, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments as the model form wants them: positional in schema order, by keyword only where keyword-only.

    Trailing arguments at their default are left out.
    """
    args: list[Any] = []
    pending: list[Any] = []
    kwargs: dict[str, Any] = {}
    for a in op._schema.arguments:
        default = a.default_value if a.has_default_value() else None
        value = values.get(a.name, default)
        plain = a.has_default_value() and _same(value, default)
        if a.kwarg_only:
            if not plain:
                kwargs[a.name] = value
            continue
        pending.append(value)
        if not plain:
            args, pending = args + pending, []
    return tuple(args), kwargs


def symbol(argument: object, env: Environment) -> Node | int:
    """An operand of batch arithmetic: a known symbolic size or a plain integer."""
    try:
        ((kind, value),) = argument.items()  # type: ignore[attr-defined]
        return _sym_int(value, env) if kind == "as_sym_int" else _int(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadArgument("batch arithmetic on something that is no size", field="graph") from error


def _is_placement(declared: str, name: str) -> bool:
    return "Device" in declared or "Layout" in declared or "Generator" in declared or name == "pin_memory"


def _same(value: Any, default: Any) -> bool:
    return type(value) is type(default) and not isinstance(value, Node) and bool(value == default)


def _int(value: object) -> int:
    if type(value) is not int or not -(1 << 63) <= value < 1 << 63:
        raise ValueError("no 64-bit integer")
    return value


def _float(value: object) -> float:
    if isinstance(value, str):
        return _WORDS[value]
    if type(value) not in (int, float):
        raise TypeError("no number")
    return float(value)  # type: ignore[arg-type]


def _bool(value: object) -> bool:
    if type(value) is not bool:
        raise TypeError("no truth value")
    return value


def _string(value: object) -> str:
    if not isinstance(value, str) or not (value in _STRINGS or _EQUATION.fullmatch(value)):
        raise ValueError("no known word")
    return value


def _tensor(value: dict[str, Any], env: Environment) -> Value:
    found = env[value["name"]]
    if _is_symbolic(found):
        raise TypeError("a size, not a tensor")
    return found


def _is_symbolic(value: Value) -> bool:
    return isinstance(value, Node) and bool(value.meta.get("symbolic"))


def _sym_int(value: dict[str, Any], env: Environment) -> Node | int:
    ((kind, inner),) = value.items()
    if kind == "as_int":
        return _int(inner)
    found = env[inner] if kind == "as_name" else None
    if not isinstance(found, Node) or not _is_symbolic(found):
        raise TypeError("no symbolic size")
    return found


def _list(value: object, one: Callable[[Any], Any]) -> list[Any]:
    if not isinstance(value, list) or len(value) > _MAX_LIST:
        raise TypeError("no list, or a long one")
    return [one(v) for v in value]


def _optional_tensor(value: dict[str, Any], env: Environment) -> Value | None:
    ((kind, inner),) = value.items()
    if kind == "as_none":
        return None
    if kind != "as_tensor":
        raise TypeError("no tensor")
    return _tensor(inner, env)


def _number(kind: str, value: Any, env: Environment) -> Any:
    if kind == "as_int":
        return _int(value)
    if kind == "as_float":
        return _float(value)
    if kind == "as_bool":
        return _bool(value)
    if kind == "as_sym_int":
        return _sym_int(value, env)
    raise TypeError("no number")


def _sized(kind: str, value: Any, env: Environment) -> Any:
    return _sym_int(value, env) if kind == "as_sym_int" else _int(_only(kind, "as_int", value))


def _sizes(kind: str, value: Any, env: Environment) -> Any:
    if kind == "as_sym_ints":
        return _list(value, lambda v: _sym_int(v, env))
    return _list(_only(kind, "as_ints", value), _int)


def _tensors(kind: str, value: Any, env: Environment) -> Any:
    return _list(_only(kind, "as_tensors", value), lambda v: _tensor(v, env))


def _optional_tensors(kind: str, value: Any, env: Environment) -> Any:
    if kind == "as_tensors":
        return _tensors(kind, value, env)
    return _list(_only(kind, "as_optional_tensors", value), lambda v: _optional_tensor(v, env))


def _floats(kind: str, value: Any, env: Environment) -> Any:
    return _list(value, _float) if kind in ("as_floats", "as_ints") else _only(kind, "as_floats", value)


def _real(kind: str, value: Any, env: Environment) -> Any:
    return _float(value) if kind in ("as_float", "as_int") else _only(kind, "as_float", value)


def _only(kind: str, wanted: str, value: Any) -> Any:
    if kind != wanted:
        raise TypeError(f"{kind} is not {wanted}")
    return value


_BY_TYPE: dict[str, Callable[[str, Any, Environment], Any]] = {
    "Tensor": lambda k, v, env: _tensor(_only(k, "as_tensor", v), env),
    "List[Tensor]": _tensors,
    "List[Optional[Tensor]]": _optional_tensors,
    "int": _sized,
    "List[int]": _sizes,
    "float": _real,
    "List[float]": _floats,
    "number": _number,
    "bool": lambda k, v, env: _bool(_only(k, "as_bool", v)),
    "str": lambda k, v, env: _string(_only(k, "as_string", v)),
    "ScalarType": lambda k, v, env: DTYPES[_int(_only(k, "as_scalar_type", v))],
    "MemoryFormat": lambda k, v, env: _MEMORY[_int(_only(k, "as_memory_format", v))],
    "Layout": lambda k, v, env: {7: None}[_only(k, "as_layout", v)],
    "Device": lambda k, v, env: _only(k, "as_device", v) and None,
}


def _value(argument: dict[str, Any], declared: str, env: Environment) -> Any:
    ((kind, value),) = argument.items()
    if declared.startswith("Optional[") and kind == "as_none":
        return None
    inner = declared.removeprefix("Optional[").removesuffix("]") if declared.startswith("Optional[") else declared
    return _BY_TYPE[inner](kind, value, env)
