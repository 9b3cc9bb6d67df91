"""How long work tells where it is: a callback that the command line turns into a bar, a library user into anything."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""``progress(message, done, total)``; called often, must be cheap, must not raise."""


def part(progress: Progress, number: int, parts: int) -> Progress:
    """The callback of one part of work that has so many parts of equal length."""

    def inner(message: str, done: int, total: int) -> None:
        progress(message, number * total + done, parts * total)

    return inner


def silent(message: str, done: int, total: int) -> None:
    """Say nothing; the default everywhere."""
