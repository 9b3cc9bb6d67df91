"""Run the compiled repair pipeline with the KFP local runner: the file that a cluster would get, on a laptop."""

from __future__ import annotations

import contextlib
import importlib.resources
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelmend import errors
from modelmend.cli.view import StageView
from modelmend.errors import InputError, ModelmendError
from modelmend.events import EVENTS_VARIABLE
from modelmend.request import RepairRequest, check_request
from modelmend.rundir import RunDirectory, adopt, publish
from modelmend.storage import check_kfp_path


def compiled_pipeline(name: str = "repair") -> str:
    """Text of a compiled pipeline: from the installed package, or from the source tree of an editable install."""
    packaged = importlib.resources.files("modelmend") / "data" / "pipelines" / f"{name}.yaml"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    source = Path(__file__).resolve().parents[3] / "pipelines" / f"{name}.yaml"
    if source.is_file():
        return source.read_text(encoding="utf-8")
    raise InputError(
        f"the compiled pipeline {name!r} is not in this installation", fix="install the modelmend wheel again"
    )


def run_pipeline(request: RepairRequest, run: RunDirectory, view: StageView) -> None:
    """Run the compiled pipeline locally and bring its artifacts into the run directory.

    Args:
        request: What to do; its fields are the pipeline's parameters.
        run: A prepared run directory.
        view: Shows the stages.

    Raises:
        ModelmendError: the error of the stage that failed.
    """
    check_request(request)
    try:
        from kfp import components, local
    except ImportError as error:
        raise InputError(
            "the local runner needs kfp", fix="pip install 'modelmend[pipelines]' or use --runner in-process"
        ) from error
    for value in (run.path, *request.arguments().values()):
        check_kfp_path(value)
    root = Path(tempfile.mkdtemp(prefix="kfp-", dir=run.path))
    events, log = run.path / "events.jsonl", run.path / "pipeline.log"
    events.write_text("", encoding="utf-8")
    pipeline_file = run.path / "pipeline.yaml"
    pipeline_file.write_text(compiled_pipeline(), encoding="utf-8")
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    pipeline = components.load_component_from_file(str(pipeline_file))
    failure: BaseException | None = None
    with _environment(events), _followed(events, view), log.open("a", encoding="utf-8") as stream:
        try:
            with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
                pipeline(**request.arguments())
        except RuntimeError as error:
            failure = error
    adopt(run, root)
    reports = sorted(root.rglob("write-report*/**/report"), key=lambda p: p.stat().st_mtime)
    if reports:
        shutil.copyfile(reports[-1], run.path / "report.html")
    publish(run)
    if failure is not None:
        raise _stage_error(events, log) from failure
    shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def _environment(events: Path) -> Iterator[None]:
    wanted = {EVENTS_VARIABLE: str(events), "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONWARNINGS": "ignore"}
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def _followed(events: Path, view: StageView) -> Iterator[None]:
    """Show events while they are written by other processes."""
    stop = threading.Event()

    def follow() -> None:
        with events.open(encoding="utf-8") as stream:
            rest = ""
            while True:
                finished = stop.is_set()
                rest += stream.read()
                *lines, rest = rest.split("\n")
                for line in lines:
                    with contextlib.suppress(ValueError):
                        view.show(json.loads(line))
                if finished:
                    return
                time.sleep(0.1)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def _stage_error(events: Path, log: Path) -> ModelmendError:
    found: dict[str, Any] | None = None
    for line in events.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if event.get("event") == "error" and found is None:
                found = event
    if found is None:
        return ModelmendError("a pipeline task failed", where=log, fix="read the log")
    kind = getattr(errors, str(found["kind"]), ModelmendError)
    known = isinstance(kind, type) and issubclass(kind, ModelmendError) and found["kind"] != "ModelmendError"
    if not known:
        return ModelmendError(f"{found['stage']} failed: {found['message']}", where=log, fix="read the log")
    return kind(found["message"], where=found.get("where"), field=found.get("field"), fix=found.get("fix"))
