"""``modelmend scan``: what a model file holds beyond tensors."""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def scan_command(model: str, tracking_uri: str, as_json: bool, console: Console) -> int:
    """Scan, print, return the exit code (0 clean, 1 findings, 2 error, 3 nothing scanned)."""
    from modelmend import storage
    from modelmend.model.scan import scan

    with tempfile.TemporaryDirectory() as work:
        report = scan(storage.fetch(model, Path(work), tracking_uri=tracking_uri or None))
    if as_json:
        console.print_json(report.model_dump_json())
        return int(report.exit_code)
    if report.issues:
        table = Table(title=escape(f"findings in {model}"), title_justify="left")
        for column in ("severity", "kind", "where", "what"):
            table.add_column(column, overflow="fold")
        for issue in report.issues:
            table.add_row(issue.severity, issue.kind, escape(issue.where), escape(issue.what))
        console.print(table)
    for error in report.errors:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
    for skipped in report.skipped:
        console.print(f"ignored: {skipped}", style="dim", markup=False, highlight=False)
    words = {
        0: "clean: tensors and an allow-listed graph only",
        1: "findings: see above",
        2: "could not be read",
        3: "nothing was scanned",
    }
    console.print(words[int(report.exit_code)])
    return int(report.exit_code)
