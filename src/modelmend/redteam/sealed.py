"""The true trigger of an infected model, kept apart: it is opened for the final measurement and for nothing else."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from modelmend.errors import InputError
from modelmend.redteam.attacks import ATTACKS, Attack

_LOG = logging.getLogger(__name__)
_KEY = "modelmend.sealed"
PURPOSE = "final-measurement"


class Sealed:
    """A drawn attack that shows neither target nor trigger until it is opened for the final measurement."""

    def __init__(self, attack: Attack, origin: str = "memory") -> None:
        self.__attack = attack
        self._origin = origin

    def __repr__(self) -> str:
        return f"Sealed({self._origin})"

    def open(self, *, purpose: str) -> Attack:
        """The attack; raises ``InputError`` unless ``purpose`` is ``final-measurement``. Every opening is logged."""
        if purpose != PURPOSE:
            raise InputError(
                f"a sealed trigger does not open for {purpose!r}",
                where=self._origin,
                field="purpose",
                fix=f"only the final measurement opens it: purpose={PURPOSE!r}",
            )
        _LOG.info("sealed trigger %s opened for %s", self._origin, purpose)
        return self.__attack

    def write(self, path: Path) -> None:
        """Write as one safetensors file: the trigger's tensors, and as JSON in its header the method and target."""
        attack = self.__attack
        header = {"format": 1, "attack": attack.kind.name, "target": attack.target_class, "classes": attack.num_classes}
        work = path.with_name(path.name + ".part")
        tensors = {name: value.contiguous() for name, value in attack.tensors.items()}
        save_file(tensors, work, metadata={_KEY: json.dumps(header, sort_keys=True)})
        work.replace(path)


def read_sealed(path: Path) -> Sealed:
    """Read a sealed trigger file, still sealed. Raises ``InputError`` when it is none."""
    try:
        with safe_open(path, framework="pt") as stream:
            header = json.loads((stream.metadata() or {})[_KEY])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118  (not a dict)
        kind = ATTACKS[header["attack"]]
        attack = Attack(kind, header["target"], int(header["classes"]), tensors)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"not a sealed trigger file: {error!r}", where=path, fix="write one with modelmend redteam train"
        ) from error
    return Sealed(attack, str(path))


def open_sealed(path: Path, *, purpose: str) -> Attack:
    """Open a sealed trigger file for the final measurement; any other ``purpose`` is refused and nothing is read."""
    if purpose != PURPOSE:
        raise InputError(
            f"a sealed trigger does not open for {purpose!r}",
            where=path,
            field="purpose",
            fix=f"only the final measurement opens it: purpose={PURPOSE!r}",
        )
    return read_sealed(path).open(purpose=purpose)
