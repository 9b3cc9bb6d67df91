"""A run directory: the stage artifacts of one run and, at its top, the files that other tools read."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from modelmend.artifacts import MANIFEST, SCHEMAS, read_artifact
from modelmend.errors import ArtifactError, InputError
from modelmend.records import Decision, Registration, Scorecard
from modelmend.request import RepairRequest

SECOND_LOOK = ("edited", "scorecard", "privacy", "decision")
"""Stages that exist twice after a fallback; the second carries the suffix ``_2``."""
PUBLISHED = {
    "repaired.pt2": ("edited", "model.pt2"),
    "repaired.safetensors": ("edited", "model.safetensors"),
    "scorecard.json": ("scorecard", "scorecard.json"),
    "privacy.json": ("privacy", "privacy.json"),
    "decision.json": ("decision", "decision.json"),
    "registration.json": ("registration", "registration.json"),
}
"""File at the top of a run directory -> the stage and file that it is a copy of."""

_claimed: dict[Path, FileLock] = {}


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside a run directory."""

    path: Path

    @property
    def artifacts(self) -> Path:
        """Folder of the stage artifacts."""
        return self.path / "artifacts"

    def stage(self, name: str) -> Path:
        """Folder of one stage's artifact."""
        return self.artifacts / name

    def final(self, name: str) -> Path:
        """The stage's artifact that counts: of the second look once that was judged."""
        return self.stage(f"{name}_2") if name in SECOND_LOOK and self.has("decision_2") else self.stage(name)

    def has(self, name: str) -> bool:
        """Whether the stage left an artifact."""
        return (self.stage(name) / MANIFEST).is_file()


def make_folder(path: Path, field: str) -> Path:
    """The folder, made if it is not there; raises ``InputError`` about ``field`` where that is not allowed."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write here: {error.strerror}", where=path, field=field, fix=f"choose another {field}"
        ) from error
    return path


def open_run(path: str | Path) -> RunDirectory:
    """Open the directory of an earlier run; raises ``InputError`` if it is none."""
    run = RunDirectory(Path(path))
    if not run.artifacts.is_dir():
        raise InputError("not a run directory (no artifacts/ in it)", where=path, fix="give the --run-dir of a repair")
    return run


def prepare(path: str | Path, request: RepairRequest) -> RunDirectory:
    """Create a run directory, or take one up again that was made for the same request.

    What an earlier run judged and published there is forgotten: it may be about other samples or another model.

    Raises:
        InputError: no write permission, another process is at work there, or the directory holds results of another request.
    """
    run = RunDirectory(Path(path).resolve())
    record = run.path / "run.json"
    try:
        run.artifacts.mkdir(parents=True, exist_ok=True)
        _claim(run.path)
        if record.is_file():
            earlier = json.loads(record.read_text(encoding="utf-8"))
            now, unset = request.model_dump(mode="json"), {k: f.default for k, f in RepairRequest.model_fields.items()}
            changed = sorted(k for k, v in now.items() if earlier.get(k, unset[k]) != v)
            if changed and any(run.artifacts.iterdir()):
                raise InputError(
                    "this run directory was made for another request",
                    where=run.path,
                    field=", ".join(changed),
                    fix="choose another --run-dir, or repeat the earlier options to take the run up again",
                )
        forget_verdict(run)
        replace_text(record, json.dumps(request.model_dump(mode="json"), indent=1) + "\n")
    except OSError as error:
        raise InputError(
            f"cannot write the run directory: {error.strerror}",
            where=run.path,
            fix="choose a directory that you may write to",
        ) from error
    except ValueError as error:
        raise InputError("run.json is unreadable", where=record, fix="choose another --run-dir") from error
    return run


def _claim(path: Path) -> None:
    """Hold the directory for this process, until it ends however it ends; raises ``InputError`` if another has it."""
    lock = _claimed.setdefault(path, FileLock(path / ".lock"))
    if lock.is_locked:
        return
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            "another process is working in this run directory",
            where=path,
            fix="wait for it, or choose another --run-dir",
        ) from error


def forget_verdict(run: RunDirectory) -> None:
    """Remove what was judged, published and left half by an earlier run; the stages before the judgement stay."""
    for name in ("decision", "registration", "scorecard", "privacy", *(f"{stage}_2" for stage in SECOND_LOOK)):
        shutil.rmtree(run.stage(name), ignore_errors=True)
    for name in (*PUBLISHED, "report.html"):
        (run.path / name).unlink(missing_ok=True)
    for left in (*run.artifacts.glob("*.tmp-*"), *run.path.glob("kfp-*")):
        shutil.rmtree(left, ignore_errors=True)


def replace_text(path: Path, text: str) -> None:
    """Write a file so that readers see the old or the new one, never half of it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.tmp-", dir=path.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(name).chmod(0o644)
    Path(name).replace(path)


def replace_copy(source: Path, path: Path) -> None:
    """Copy a file so that readers see the old or the new one, never half of it."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.tmp-", dir=path.parent)
    os.close(handle)
    shutil.copyfile(source, name)
    Path(name).chmod(0o644)
    Path(name).replace(path)


def publish(run: RunDirectory) -> None:
    """Copy what other tools read to the top of the run directory."""
    for name, (stage, file) in PUBLISHED.items():
        folder = run.final(stage)
        if (folder / MANIFEST).is_file():
            replace_copy(read_artifact(folder, SCHEMAS[stage]).file(file), run.path / name)


def adopt(run: RunDirectory, produced: Path) -> None:
    """Move the artifacts that a pipeline left under ``produced`` to their stages; a second look is told by content."""
    for manifest in sorted(produced.rglob(MANIFEST)):
        folder = manifest.parent
        try:
            schema = json.loads(manifest.read_text(encoding="utf-8"))["schema"]
        except (ValueError, KeyError):
            continue
        name = next((stage for stage, known in SCHEMAS.items() if known == schema), None)
        if name is None or ".tmp-" in folder.name:
            continue
        target = run.stage(name + ("_2" if name in SECOND_LOOK and _second_look(folder, name) else ""))
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)


def _second_look(folder: Path, name: str) -> bool:
    def read(file: str) -> dict[str, object]:
        loaded: dict[str, object] = json.loads((folder / file).read_text(encoding="utf-8"))
        return loaded

    if name == "edited":
        return read("edit.json").get("step") == "fine_tune"
    if name == "privacy":
        return bool(read(MANIFEST).get("params", {}).get("looks") == 2)  # type: ignore[attr-defined]
    return read(f"{name}.json").get("looks") == 2


def outcome(run: RunDirectory) -> tuple[Decision | None, Scorecard | None, Registration | None]:
    """Decision, scorecard and registration of a finished run; ``None`` for what is not there."""

    def opened(stage: str) -> Path | None:
        folder = run.final(stage)
        try:
            return read_artifact(folder, SCHEMAS[stage]).file(f"{stage}.json")
        except ArtifactError:
            return None

    decision, scorecard, registration = opened("decision"), opened("scorecard"), opened("registration")
    return (
        Decision.read(decision) if decision else None,
        Scorecard.read(scorecard) if scorecard else None,
        Registration.read(registration) if registration else None,
    )
