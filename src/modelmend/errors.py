"""Every error that modelmend raises on purpose: what was wrong, where, and what to do."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """Text out of a file as a terminal and a report may show it: control, bidirectional and broken characters escaped.

    Args:
        text: Anything.
        keep: Characters to leave as they are.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


class ModelmendError(Exception):
    """Base of all expected errors; the command line turns each into one message and exit code 2.

    Args:
        message: What was wrong, in one sentence.
        where: The file, artifact, row or URI it was found in.
        field: The field, key or parameter inside ``where``.
        fix: What the user can do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        where: object | None = None,
        field: str | None = None,
        fix: str | None = None,
    ) -> None:
        message = printable(message, keep="\n")
        super().__init__(message)
        self.message = message
        self.where = None if where is None else str(where)
        self.field = field
        self.fix = fix

    def __str__(self) -> str:
        parts = [self.message]
        if self.where:
            parts.append(f"in: {self.where}")
        if self.field:
            parts.append(f"field: {self.field}")
        if self.fix:
            parts.append(f"fix: {self.fix}")
        return "\n  ".join(parts)


class InputError(ModelmendError):
    """An argument, option or configuration value is unusable."""


class StorageError(ModelmendError):
    """A URI cannot be read or written."""


class ArtifactError(ModelmendError):
    """A stage artifact is missing, incomplete, altered or of another schema."""


class ModelRefused(ModelmendError):
    """A model file holds something that data alone does not need, or breaks a bound."""


class ModelUnsupported(ModelmendError):
    """A model is well-formed but outside what modelmend can work on."""


class SamplesError(ModelmendError):
    """The clean samples cannot be read or do not pass validation."""


class PolicyError(ModelmendError):
    """A policy file cannot be used."""


class GateError(ModelmendError):
    """Evidence is missing or contradicts itself, so no verdict can be given."""


class RegistryError(ModelmendError):
    """The model registry cannot be reached or refuses the request."""
