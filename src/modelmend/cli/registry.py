"""``modelmend verify``, ``approve``, ``rollback``: what happens to a version after it was registered."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

EXIT = {"verified": 0, "unsigned": 0, "failed": 1}


def verify_command(model: str, key: Path | None, tracking_uri: str, console: Console) -> int:
    """Verify, print every check, return 0 (verified, or unsigned with no key asked for) or 1."""
    from modelmend.registry.verify import verify

    report = verify(model, tracking_uri=tracking_uri or None, public_key=key)
    table = Table(title=report.target, title_justify="left")
    for column in ("check", "holds", "detail"):
        table.add_column(column)
    marks = {True: "[green]yes", False: "[red]no", None: "[yellow]not checked"}
    for check in report.checks:
        table.add_row(check.name, marks[check.ok], check.detail)
    console.print(table)
    words = {
        "verified": "verified: signature, hashes and decision hold",
        "unsigned": "unsigned: all hashes agree, but nobody vouches for them (give --key to check a signature)",
        "failed": "failed: something does not hold, see above",
    }
    console.print(words[report.status], highlight=False)
    return 1 if key is not None and report.status != "verified" else EXIT[report.status]


def approve_command(name: str, version: str, by: str, alias: str, tracking_uri: str, console: Console) -> int:
    """Move an alias in a person's name."""
    from modelmend.registry.aliases import approve

    move = approve(name, version, by=by, alias=alias, tracking_uri=tracking_uri or None)
    console.print(f"{name}@{alias}: {move.before or 'nothing'} -> version {move.after}, by {move.by}", highlight=False)
    return 0


def rollback_command(name: str, by: str, alias: str, tracking_uri: str, console: Console) -> int:
    """Put an alias back."""
    from modelmend.registry.aliases import rollback

    move = rollback(name, by=by, alias=alias, tracking_uri=tracking_uri or None)
    console.print(f"{name}@{alias}: {move.before or 'nothing'} -> version {move.after}, by {move.by}", highlight=False)
    return 0
