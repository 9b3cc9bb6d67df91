"""The committed YAML is what the sources compile to, and what a KFP API server would accept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("kfp")

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("pipelines/*.yaml"), *ROOT.glob("components/*/component.yaml")])
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def test_generated_files_are_current() -> None:
    from pipelines.compile import compiled

    stale = [p.name for p, text in compiled().items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    assert not stale, f"run: python -m pipelines.compile ({stale})"


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_api_server_would_accept(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    documents = [d for d in yaml.safe_load_all(text) if d]
    specs = [d for d in documents if "pipelineInfo" in d]
    assert len(specs) == 1
    spec = json_format.ParseDict(specs[0], pipeline_spec_pb2.PipelineSpec())
    assert spec.schema_version == "2.1.0"
    assert NAME.fullmatch(spec.pipeline_info.name)
    executors = set(spec.deployment_spec["executors"])
    for component in spec.components.values():
        if component.WhichOneof("implementation") == "executor_label":
            assert component.executor_label in executors
    assert len(text) < 700_000


def test_one_image_for_all() -> None:
    from components.base import IMAGE

    text = (ROOT / "pipelines" / "repair.yaml").read_text(encoding="utf-8")
    images = set(re.findall(r"image: (\S+)", text))
    assert images == {IMAGE}
    assert "pip install" not in text


def test_registration_depends_on_the_decision_as_data() -> None:
    spec = yaml.safe_load((ROOT / "pipelines" / "repair.yaml").read_text(encoding="utf-8"))

    def tasks(node: dict[str, object]) -> list[dict[str, object]]:
        found = []
        for component in [node["root"], *node["components"].values()]:  # type: ignore[index, union-attr, misc]
            found += list(component.get("dag", {}).get("tasks", {}).values())
        return found

    registering = [t for t in tasks(spec) if t["componentRef"]["name"].startswith("comp-register-model")]  # type: ignore[index]
    assert len(registering) == 2
    for task in registering:
        assert "decision" in task["inputs"]["artifacts"]  # type: ignore[index]


def test_judging_tasks_are_never_cached() -> None:
    spec = yaml.safe_load((ROOT / "pipelines" / "repair.yaml").read_text(encoding="utf-8"))
    fresh = ("import-model", "measure-repair", "audit-privacy", "gate-repair", "register-model", "validate-samples")
    seen = 0
    for component in [spec["root"], *spec["components"].values()]:
        for name, task in component.get("dag", {}).get("tasks", {}).items():
            if name.startswith(fresh):
                seen += 1
                assert not task["cachingOptions"].get("enableCache"), name
    assert seen >= 8
