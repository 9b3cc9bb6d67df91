"""A stage artifact: a directory that is either whole or absent.

``manifest.json`` is written last and names every file with its SHA-256, so a directory without a valid manifest
is never taken for a result. Directories are built beside their destination and moved there in one step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from modelmend import __version__
from modelmend.errors import ArtifactError
from modelmend.metrics import Meter

MANIFEST = "manifest.json"
SCHEMAS = {
    role: f"modelmend.{role}/1"
    for role in (
        "suspect",
        "samples",
        "evidence",
        "activations",
        "pruned",
        "edited",
        "scorecard",
        "privacy",
        "decision",
        "registration",
    )
}
"""Role of a stage's artifact -> its schema and version."""
FORMAT = 1
_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """``sha256:<hex>`` of one file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def sha256_code(*modules: ModuleType) -> str:
    """Hash of modules, of packages with all Python and JSON files in them: what they make changes when they do."""
    files: list[Path] = []
    for module in modules:
        folders = [Path(folder) for folder in getattr(module, "__path__", ())]
        inside = [file for folder in folders for file in folder.rglob("*") if file.suffix in (".py", ".json")]
        files += sorted(inside) if folders else [Path(str(module.__file__))]
    return sha256_json([sha256_file(file) for file in files])


def sha256_json(value: Any) -> str:
    """``sha256:<hex>`` of a JSON value in canonical form (sorted keys, no spaces, no NaN)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


@dataclass(frozen=True)
class Artifact:
    """A whole stage artifact on disk.

    Attributes:
        path: The directory.
        schema: What it holds, such as ``modelmend.suspect/1``.
        producer: The step that wrote it.
        digest: Hash over schema, files and their hashes; independent of time and place.
        inputs: Role -> digest of the artifacts it was made from.
        params: Settings of the step that shaped the result.
        code_version: Version of modelmend that wrote it.
        seed: The seed of the step, if it drew random numbers.
        seconds: Wall time of the step.
        passes: Sample passes spent (forward = 1, forward and backward = 3).
        files: Relative name -> SHA-256.
    """

    path: Path
    schema: str
    producer: str
    digest: str
    inputs: Mapping[str, str]
    params: Mapping[str, Any]
    code_version: str
    seed: int | None
    seconds: float
    passes: float
    files: Mapping[str, str] = field(repr=False)

    def file(self, name: str) -> Path:
        """Path of a listed file. Raises ``ArtifactError`` when the manifest does not list it."""
        if name not in self.files:
            raise ArtifactError(
                f"the artifact has no file {name!r}", where=self.path, fix="re-run the step that writes it"
            )
        return self.path / name

    def json(self, name: str) -> Any:
        """Content of a listed JSON file."""
        return json.loads(self.file(name).read_text(encoding="utf-8"))


def _listing(folder: Path) -> dict[str, str]:
    names = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): sha256_file(p) for p in names if p.name != MANIFEST}


def write_json(path: Path, value: Any) -> None:
    """Write JSON that any reader takes (no NaN), with a final newline."""
    path.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def writing(
    path: str | Path,
    schema: str,
    *,
    producer: str,
    inputs: Mapping[str, Artifact] | None = None,
    params: Mapping[str, Any] | None = None,
    seed: int | None = None,
    meter: Meter | None = None,
) -> Iterator[Path]:
    """Build an artifact: yields an empty folder to fill; on success it becomes ``path``, on error nothing remains.

    Args:
        path: Destination directory; replaced if it exists.
        schema: ``modelmend.<kind>/<version>``.
        producer: Name of the step.
        inputs: The artifacts that this one is made from, by role.
        params: Settings that shaped the result, JSON values.
        seed: Recorded in the manifest.
        meter: Running since the step began; without one, only the writing is counted.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f"{target.name}.tmp-", dir=target.parent))
    except OSError as error:
        raise ArtifactError(
            f"cannot write here: {error.strerror}", where=target, fix="choose a directory that you may write to"
        ) from error
    cost = meter or Meter()
    try:
        yield work
        files = _listing(work)
        body = {
            "format": FORMAT,
            "schema": schema,
            "producer": producer,
            "code_version": __version__,
            "inputs": {role: item.digest for role, item in sorted((inputs or {}).items())},
            "params": dict(params or {}),
            "seed": seed,
            "files": files,
        }
        body["digest"] = sha256_json({"schema": schema, "files": files})
        body["seconds"] = round(cost.seconds, 3)
        body["sample_passes"] = cost.passes
        write_json(work / MANIFEST, body)
        work.chmod(0o755)
        if target.exists():
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def read_artifact(path: str | Path, schema: str, *, verify: bool = True) -> Artifact:
    """Open an artifact and check that it is whole.

    Args:
        path: The directory.
        schema: The schema that the caller can read.
        verify: Recompute every file's hash.

    Raises:
        ArtifactError: missing, half-written, altered, or of another schema.
    """
    folder = Path(path)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise ArtifactError("no whole artifact here", where=folder, fix="re-run the step that writes it")
    try:
        body = json.loads(manifest.read_text(encoding="utf-8"))
        artifact = Artifact(
            path=folder,
            schema=body["schema"],
            producer=body["producer"],
            digest=body["digest"],
            inputs=body["inputs"],
            params=body["params"],
            code_version=body["code_version"],
            seed=body["seed"],
            seconds=float(body["seconds"]),
            passes=float(body["sample_passes"]),
            files=body["files"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"unreadable manifest: {error!r}", where=manifest, fix="re-run the step that writes it"
        ) from error
    if artifact.schema != schema:
        raise ArtifactError(
            f"this is {artifact.schema!r}, not {schema!r}", where=folder, fix="check which artifact goes to which input"
        )
    if verify:
        actual = _listing(folder)
        if actual != dict(artifact.files):
            changed = sorted(n for n in {*actual, *artifact.files} if actual.get(n) != artifact.files.get(n))
            raise ArtifactError(
                "files differ from the manifest",
                where=folder,
                field=", ".join(changed[:5]),
                fix="re-run the step that writes it",
            )
        if artifact.digest != sha256_json({"schema": artifact.schema, "files": actual}):
            raise ArtifactError(
                "the digest does not fit the files", where=manifest, fix="re-run the step that writes it"
            )
    return artifact
