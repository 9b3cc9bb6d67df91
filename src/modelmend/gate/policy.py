"""Reading a policy from YAML: an error names the file, the line, the key, and the nearest key that exists."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from modelmend.errors import PolicyError
from modelmend.gate.names import nearest
from modelmend.gate.schema import Policy

__all__ = ["Policy", "load_policy", "packaged_policies", "policy_text"]

_MAX_BYTES = 64 * 1024
_MAX_DEPTH = 8


def packaged_policies() -> tuple[str, ...]:
    """Names of the policies that ship with modelmend."""
    folder = files("modelmend.gate") / "policies"
    return tuple(sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml")))


def policy_text(name: str) -> str:
    """YAML text of a packaged policy, with its comments: the start of an own one."""
    return (files("modelmend.gate") / "policies" / f"{name}.yaml").read_text(encoding="utf-8")


def load_policy(path_or_name: str | Path | None = None) -> Policy:
    """Read and check a policy.

    Keys that a file leaves out take the value of the packaged ``default`` policy.

    Args:
        path_or_name: A YAML file, the name of a packaged policy, or ``None`` for ``default``.

    Raises:
        PolicyError: no such file or name; YAML that does not parse; a key that is unknown or given twice; a value
            of the wrong type, out of range, NaN or infinite.
    """
    if path_or_name is None:
        path_or_name = "default"
    if isinstance(path_or_name, str) and path_or_name in packaged_policies():
        return parse_policy(policy_text(path_or_name), where=f"packaged policy {path_or_name}")
    path = Path(path_or_name)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise PolicyError(f"a policy is at most {_MAX_BYTES} bytes", where=path, fix="give the policy file itself")
        return parse_policy(path.read_text(encoding="utf-8"), where=path)
    except UnicodeDecodeError as error:
        raise PolicyError("not UTF-8 text", where=path, fix="save the file as UTF-8") from error
    except OSError as error:
        hint = nearest(str(path_or_name), packaged_policies())
        raise PolicyError(
            f"cannot read the policy: {error.strerror}{hint}",
            where=path,
            fix=f"give a YAML file or one of: {', '.join(packaged_policies())}",
        ) from error


def parse_policy(text: str, *, where: object) -> Policy:
    """Check YAML text; ``where`` names its source in errors, which are those of ``load_policy``."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[tuple[str, ...], int] = {}
        if root is not None:
            _index(root, (), lines, where)
        data = {} if root is None else yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = where if mark is None else f"{where}:{mark.line + 1}"
        raise PolicyError(
            f"not valid YAML: {getattr(error, 'problem', None) or error}", where=place, fix="mend the YAML"
        ) from error
    except ValueError as error:
        raise PolicyError(f"not valid YAML: {error}", where=where, fix="mend the YAML") from error
    if not isinstance(data, dict):
        raise PolicyError("a policy is a mapping of sections", where=where, fix="start from `modelmend policy default`")
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise _explain(error, lines, where) from error


def _index(node: yaml.Node, path: tuple[str, ...], lines: dict[tuple[str, ...], int], where: object) -> None:
    """Note the line of every key; refuse keys given twice, which plain YAML takes silently (the last one wins)."""
    if len(path) > _MAX_DEPTH:
        raise PolicyError("nested too deeply for a policy", where=where, fix="start from `modelmend policy default`")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = str(key.value)
            here = (*path, name)
            if here in lines:
                raise PolicyError(
                    f"the key is given twice, first in line {lines[here]}",
                    where=f"{where}:{key.start_mark.line + 1}",
                    field=".".join(here),
                    fix="remove one of them",
                )
            lines[here] = key.start_mark.line + 1
            _index(value, here, lines, where)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            here = (*path, str(position))
            lines[here] = value.start_mark.line + 1
            _index(value, here, lines, where)


def _explain(error: ValidationError, lines: dict[tuple[str, ...], int], where: object) -> PolicyError:
    first = error.errors()[0]
    path = tuple(str(part) for part in first["loc"])
    line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
    place = where if line is None else f"{where}:{line}"
    message = first["msg"].removeprefix("Value error, ")
    fix = "see docs/policy.md"
    if first["type"] == "extra_forbidden":
        known = _keys(path[:-1])
        message = f"unknown key {path[-1]!r}{nearest(path[-1], known)}"
        fix = f"use one of: {', '.join(known)}"
    elif isinstance(first.get("input"), str) and first["type"] in {"float_type", "int_type"}:
        fix = "write a plain number, such as 0.001 (YAML reads 1e-3 as text)"
    return PolicyError(message, where=place, field=".".join(path), fix=fix)


def _keys(path: tuple[str, ...]) -> list[str]:
    section: Any = Policy
    for part in path:
        section = section.model_fields[part].annotation
    return sorted(section.model_fields) if isinstance(section, type) and issubclass(section, BaseModel) else []
