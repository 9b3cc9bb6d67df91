"""Aliases with a history: MLflow moves an alias silently, so every move is written down before it is made."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

from modelmend.errors import RegistryError
from modelmend.registry.connect import client, talking_to, tracking_uri_or_default

Action = Literal["register", "approve", "rollback", "move"]
_TAG = "modelmend.alias."


@dataclass(frozen=True)
class Move:
    """One recorded move of an alias.

    Attributes:
        alias: The alias.
        number: Position in its history, from 1.
        action: What moved it.
        before: Version that it pointed to, ``None`` if it did not exist.
        after: Version that it points to since.
        by: Who or what did it.
        at: UTC time, ISO 8601.
        reason: In the words of whoever did it.
    """

    alias: str
    number: int
    action: Action
    before: str | None
    after: str
    by: str
    at: str
    reason: str


def history(name: str, alias: str, *, tracking_uri: str | None = None) -> list[Move]:
    """All recorded moves of an alias, oldest first."""
    uri = tracking_uri_or_default(tracking_uri)
    with talking_to(uri):
        return _history(client(uri), name, alias)


def current(name: str, alias: str, *, tracking_uri: str | None = None) -> str | None:
    """Version that the alias points to now, or ``None``."""
    uri = tracking_uri_or_default(tracking_uri)
    with talking_to(uri):
        return _current(client(uri), name, alias)


def approve(
    name: str, version: str, *, by: str, alias: str = "production", reason: str = "", tracking_uri: str | None = None
) -> Move:
    """A named person puts an alias on a registered version.

    Args:
        name: Registered model.
        version: Version number; it must have passed the gate and been registered by modelmend.
        by: The person; written to the version and to the alias's history.
        alias: What to move.
        reason: Why, in the person's words.
        tracking_uri: MLflow server or database.

    Raises:
        RegistryError: no such version; the version is not registered by modelmend, or rejected; no name given.
    """
    from modelmend.registry.provenance import REGISTERED, TAG_STATUS

    if not by.strip():
        raise RegistryError("an approval needs the name of a person", field="by", fix="give --by 'Name'")
    uri = tracking_uri_or_default(tracking_uri)
    with talking_to(uri):
        mlflow = client(uri)
        status = mlflow.get_model_version(name, version).tags.get(TAG_STATUS)
        if status != REGISTERED:
            raise RegistryError(
                f"version {version} has not passed the gate (status: {status or 'none'})",
                where=f"models:/{name}/{version}",
                fix="approve a version that modelmend registered",
            )
        move = _move(mlflow, name, alias, version, action="approve", by=by.strip(), reason=reason)
        mlflow.set_model_version_tag(name, version, "modelmend.approved_by", by.strip())
        mlflow.set_model_version_tag(name, version, "modelmend.approved_at", move.at)
        return move


def rollback(
    name: str, *, by: str, alias: str = "production", reason: str = "", tracking_uri: str | None = None
) -> Move:
    """Put an alias back to the version before its last move.

    Rolling back twice goes two versions back, not to and fro.

    Raises:
        RegistryError: nothing to go back to, or the alias was moved outside of modelmend.
    """
    uri = tracking_uri_or_default(tracking_uri)
    with talking_to(uri):
        mlflow = client(uri)
        moves, now = _history(mlflow, name, alias), _current(mlflow, name, alias)
        where = f"models:/{name}@{alias}"
        if not moves:
            raise RegistryError("the alias has no recorded history", where=where, fix="move it with approve first")
        if moves[-1].after != now:
            raise RegistryError(
                f"the alias is at version {now}, its history ends at {moves[-1].after}: moved outside of modelmend",
                where=where,
                fix="decide on a version and approve it by name",
            )
        target = _before(moves)
        if target is None:
            raise RegistryError("there is no earlier version to go back to", where=where, fix="approve another version")
        return _move(mlflow, name, alias, target, action="rollback", by=by, reason=reason)


def place(mlflow: Any, name: str, alias: str, version: str, *, reason: str) -> None:
    """Put the registration's alias on a new version, once: a repeated call leaves later moves alone."""
    version = str(version)
    moves = _history(mlflow, name, alias)
    mine = [move for move in moves if move.action == "register" and move.after == version]
    if not mine:
        _move(mlflow, name, alias, version, action="register", by="modelmend", reason=reason)
    elif moves[-1] == mine[-1] and _current(mlflow, name, alias) != version:
        mlflow.set_registered_model_alias(name, alias, version)  # written down, then interrupted


def _before(moves: list[Move]) -> str | None:
    """Version before the last move that was not undone."""
    stack: list[str | None] = []
    for move in moves:
        if move.action == "rollback" and stack:
            stack.pop()
        else:
            stack.append(move.before)
    return stack[-1] if stack else None


def _move(mlflow: Any, name: str, alias: str, version: str, *, action: Action, by: str, reason: str) -> Move:
    number = len(_history(mlflow, name, alias)) + 1
    before = _current(mlflow, name, alias)
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    move = Move(alias, number, action, before, str(version), by, at, reason)
    record = {key: value for key, value in asdict(move).items() if key not in ("alias", "number")}
    mlflow.set_registered_model_tag(name, f"{_TAG}{alias}.{number:04d}", json.dumps(record, sort_keys=True))
    mlflow.set_registered_model_alias(name, alias, str(version))
    return move


def _history(mlflow: Any, name: str, alias: str) -> list[Move]:
    tags = mlflow.get_registered_model(name).tags
    pattern = re.compile(re.escape(f"{_TAG}{alias}.") + r"(\d+)")
    found = {int(match[1]): json.loads(text) for tag, text in tags.items() if (match := pattern.fullmatch(tag))}
    return [Move(alias=alias, number=number, **found[number]) for number in sorted(found)]


def _current(mlflow: Any, name: str, alias: str) -> str | None:
    version = mlflow.get_registered_model(name).aliases.get(alias)
    return None if version is None else str(version)
