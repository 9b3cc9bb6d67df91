"""How the command line shows a run: a bar a stage while it works, a line a stage when there is no terminal."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

TITLES = {
    "import_model": "import the suspect as data",
    "validate_samples": "validate the clean samples",
    "probe_backdoor": "probe for a backdoor",
    "extract_activations": "extract activations",
    "prune_neurons": "prune neurons (ONP)",
    "edit_weights": "edit weights",
    "fine_tune": "fine-tune (fallback)",
    "measure_repair": "measure the repair",
    "audit_privacy": "audit privacy",
    "gate_repair": "judge",
    "register_model": "register",
    "write_report": "write the report",
}


class StageView:
    """Shows stages; use as a context manager.

    Args:
        console: Where to draw.
    """

    def __init__(self, console: Console) -> None:
        self.console = Console(file=console.file)  # bound now: the local runner redirects sys.stdout to its log
        self.seconds: dict[str, float] = {}
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()
        self._bars = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> StageView:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Draw one event of :mod:`modelmend.events`."""
        with self._lock:
            name = event.get("stage", "")
            title = TITLES.get(name, name)
            if event["event"] == "start":
                self._tasks[name] = self._bars.add_task(title, total=None, note="")
            elif event["event"] == "progress" and name in self._tasks:
                note = str(event["message"])[:48]
                self._bars.update(self._tasks[name], completed=event["done"], total=max(1, event["total"]), note=note)
            elif event["event"] == "warning":
                self.console.print(Text(f"warning: {event['message']}", style="yellow"), soft_wrap=True)
            elif event["event"] == "end":
                self.seconds[name] = self.seconds.get(name, 0.0) + float(event["seconds"])
                if name in self._tasks:
                    self._bars.update(self._tasks[name], completed=1, total=1, note="")
                if not self.console.is_terminal:
                    self.console.print(f"{title:<28} {event['seconds']:6.1f} s", highlight=False)
            elif event["event"] == "error":
                if name in self._tasks:
                    self._bars.update(self._tasks[name], note="[red]failed")
                if not self.console.is_terminal:
                    self.console.print(f"{title:<28} failed", highlight=False)
