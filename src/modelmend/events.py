"""A running step tells where it is, also across processes: one JSON line an event, appended to a file.

The file's name comes in the environment variable ``MODELMEND_EVENTS`` (set by the command line, inherited by the
processes of the KFP local runner). Without it, events go to the log only. Nothing in a verdict depends on events.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from modelmend.errors import ModelmendError
from modelmend.metrics import Meter

EVENTS_VARIABLE = "MODELMEND_EVENTS"
Listener = Callable[[dict[str, Any]], None]

_listener: ContextVar[Listener | None] = ContextVar("modelmend_events", default=None)
_log = logging.getLogger("modelmend")


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send the events of this context to a function, as the in-process runner does."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def emit(event: dict[str, Any]) -> None:
    """Deliver one event; never raises, because telling must not stop the work."""
    if listener := _listener.get():
        listener(event)
    if path := os.environ.get(EVENTS_VARIABLE):
        try:
            with open(path, "a", encoding="utf-8") as stream:  # noqa: PTH123 - append, one short line is atomic
                stream.write(json.dumps(event) + "\n")
        except OSError as error:
            _log.debug("cannot write event: %s", error)


class Stage:
    """A running stage: call it to tell progress (at most ten events a second); ``meter`` counts what it costs."""

    def __init__(self, name: str) -> None:
        self.name, self.meter = name, Meter()
        self._last = 0.0

    def __call__(self, message: str, done: int, total: int) -> None:
        """A ``Progress`` callback."""
        now = time.monotonic()
        if now - self._last > 0.1 or done >= total:
            self._last = now
            emit({"event": "progress", "stage": self.name, "message": message, "done": done, "total": total})

    def warn(self, message: str) -> None:
        """Tell at once what will keep the model out in the end."""
        emit({"event": "warning", "stage": self.name, "message": message})


@contextmanager
def stage(name: str) -> Iterator[Stage]:
    """Announce a stage, hand it out, tell how it ended."""
    running = Stage(name)
    emit({"event": "start", "stage": name})
    try:
        yield running
    except ModelmendError as error:
        details = {"message": error.message, "where": error.where, "field": error.field, "fix": error.fix}
        emit({"event": "error", "stage": name, "kind": type(error).__name__, **details})
        raise
    except Exception as error:
        emit(
            {
                "event": "error",
                "stage": name,
                "kind": type(error).__name__,
                "message": f"{type(error).__name__}: {error}",
            }
        )
        raise
    emit({"event": "end", "stage": name, "seconds": round(running.meter.seconds, 2)})
