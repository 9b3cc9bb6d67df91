"""Writing the report: one self-contained HTML file from whatever the run left, also after a failure."""

from __future__ import annotations

import base64
import functools
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader
from pydantic import BaseModel

from modelmend import __version__
from modelmend.report import charts, summary

_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PICTURES = 24
_MAX_PICTURE_BYTES = 2_000_000


def write_report(
    path: str | Path,
    *,
    suspect: Any = None,
    validation: Any = None,
    domain: Any = None,
    evidence: Any = None,
    pictures: Sequence[Path] = (),
    pruning: Any = None,
    edit: Any = None,
    scorecard: Any = None,
    privacy: Any = None,
    decision: Any = None,
    registration: Any = None,
    stages: Sequence[Mapping[str, Any]] = (),
    error: Mapping[str, Any] | None = None,
) -> None:
    """Write the report; every argument but the path may be ``None`` or empty.

    Args:
        path: The HTML file; replaced in one step, so that a reader never sees half of one.
        suspect: ``SuspectInfo`` or its JSON content; so for all records below.
        validation: What was found about the samples.
        domain: Whether the samples represent the model's domain.
        evidence: What the probe found on the suspect.
        pictures: PNG files of candidate triggers.
        pruning: Content of ``pruning.json``.
        edit: Content of ``edit.json``.
        scorecard: What was measured on the repaired model.
        privacy: What the audit found.
        decision: The gate's decision.
        registration: What happened at the registry.
        stages: A row a stage: ``step``, ``seconds``, ``passes``, ``digest``.
        error: ``stage``, ``message``, ``where``, ``field``, ``fix`` of what stopped the run.
    """
    given = {
        "suspect": suspect,
        "validation": validation,
        "domain": domain,
        "evidence": evidence,
        "pruning": pruning,
        "edit": edit,
        "scorecard": scorecard,
        "privacy": privacy,
        "decision": decision,
        "registration": registration,
        "error": dict(error) if error else None,
    }
    facts = {name: plain(value) for name, value in given.items()}
    text = render(facts, stages=[plain(dict(row)) for row in stages], pictures=data_uris(pictures))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f"{target.name}.tmp-", dir=target.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def render(facts: Mapping[str, Any], *, stages: Sequence[Any], pictures: Sequence[str]) -> str:
    """The HTML text; ``facts`` are plain JSON values by name."""
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            **facts,
            stages=stages,
            pictures=pictures,
            headline=summary.headline(facts),
            comparison=summary.comparison(facts),
            unmeasured=summary.unmeasured(facts),
            residual_chart=charts.residuals(facts),
            class_chart=charts.classes(facts),
            layer_chart=charts.layers(facts),
            stage_chart=charts.stages(stages),
            version=__version__,
            in_doubt=summary.in_doubt(facts.get("evidence")),
        )
    )


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("modelmend.report", "templates"),
        autoescape=True,
        undefined=ChainableUndefined,
        finalize=lambda value: "–" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, number=number, short=short)
    return environment


def plain(value: Any) -> Any:
    """JSON values of a record, with numbers that are not finite turned into ``None``."""
    if isinstance(value, BaseModel):
        return plain(value.model_dump(mode="json"))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def data_uris(pictures: Iterable[Path]) -> list[str]:
    """Pictures as data URIs; anything that is not a PNG of reasonable size is left out."""
    found = []
    for picture in list(pictures)[:_MAX_PICTURES]:
        file = Path(picture)
        if file.is_file() and file.stat().st_size <= _MAX_PICTURE_BYTES:
            content = file.read_bytes()
            if content.startswith(_PNG):
                found.append("data:image/png;base64," + base64.b64encode(content).decode("ascii"))
    return found


def percent(value: Any, digits: int = 1) -> str:
    """``97.5 %``; a dash for anything but a number."""
    return f"{100 * value:.{digits}f} %" if _is_number(value) else "–"


def number(value: Any, digits: int = 3) -> str:
    """A number with at most so many significant digits, whole ones with thousands apart; a dash for anything else."""
    if not _is_number(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}".replace(",", "\u202f")


def short(digest: Any) -> str:
    """First twelve hex digits of a hash."""
    return str(digest).removeprefix("sha256:")[:12] if digest else "–"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
