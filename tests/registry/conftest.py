"""A registry on SQLite with file artifacts, a small judged model, and a request to register it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

from modelmend.gate.judge import judge
from modelmend.gate.policy import Policy
from modelmend.model.hashing import content_hash
from modelmend.model.pt2 import read_pt2
from modelmend.records import Decision, Registration, SuspectInfo
from modelmend.registry.connect import client
from modelmend.registry.register import Request, register
from tests.evidence import digest, good_card, good_privacy

SHAPE = (1, 8, 8)
NAME = "signs"


def small_net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
    return nn.Sequential(*layers).eval()


def save(module: nn.Module, path: Path) -> Path:
    exported = torch.export.export(module, (torch.zeros(2, *SHAPE),), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(exported, path)
    return path


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_net(), tmp_path_factory.mktemp("model") / "model.pt2")


@pytest.fixture(scope="session")
def other_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_net(1), tmp_path_factory.mktemp("other") / "model.pt2")


@pytest.fixture(scope="session")
def _database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("db") / "mlflow.db"
    client(f"sqlite:///{file}").search_registered_models()
    return file


@pytest.fixture
def uri(_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MODELMEND_SIGNING_KEY", raising=False)
    shutil.copy(_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@dataclass
class Case:
    """A request that passes as it is; tests change one thing."""

    decision: Decision
    policy: Policy
    model_path: Path
    suspect: SuspectInfo
    uri: str
    key_inputs: dict[str, Any]
    artifacts: dict[str, Path] = field(default_factory=dict)
    name: str | None = NAME
    key_file: Path | None = None

    def register(self, **changes: Any) -> Registration:
        arguments = {
            "name": self.name,
            "tracking_uri": self.uri,
            "key_inputs": self.key_inputs,
            "suspect": self.suspect,
            "artifacts": self.artifacts,
            "key_file": self.key_file,
            **changes,
        }
        decision, policy = arguments.pop("decision", self.decision), arguments.pop("policy", self.policy)
        path = arguments.pop("model_path", self.model_path)
        return register(decision, policy, path, **arguments)

    @property
    def mlflow(self) -> Any:
        return client(self.uri)

    def versions(self) -> list[Any]:
        return sorted(self.mlflow.search_model_versions(f"name = '{NAME}'"), key=lambda item: int(item.version))

    def alias(self, name: str = "candidate") -> str | None:
        found = self.mlflow.get_registered_model(NAME).aliases.get(name)
        return None if found is None else str(found)

    def tags(self, version: str = "1") -> dict[str, str]:
        return dict(self.mlflow.get_model_version(NAME, version).tags)


def decide(policy: Policy, model: Path, *, seed: int = 0, **changes: Any) -> Decision:
    card = good_card(repaired_hash=content_hash(read_pt2(model)), **changes)
    return judge(policy, card, good_privacy(), samples_hash=digest("c"), seed=seed)


@pytest.fixture
def case(model_file: Path, uri: str, tmp_path: Path) -> Case:
    return make_case(model_file, uri, tmp_path)


def request_of(case: Case, key_file: Path | None) -> Request:
    parts = (case.decision, case.policy, case.model_path, NAME, case.uri, digest("8"))
    return Request(*parts, case.key_inputs, case.suspect, case.artifacts, key_file)


def make_case(model_file: Path, uri: str, tmp_path: Path) -> Case:
    policy = Policy()
    decision = decide(policy, model_file)
    suspect = SuspectInfo(
        source="models:/signs-production/7",
        format="mlflow",
        content_hash=decision.suspect_hash,
        file_hash=digest("f"),
        input_shape=SHAPE,
        num_classes=4,
        dtype="float32",
        parameters=100,
    )
    good_card(repaired_hash=decision.repaired_hash).write(tmp_path / "scorecard.json")
    decision.write(tmp_path / "decision.json")
    return Case(
        decision=decision,
        policy=policy,
        model_path=model_file,
        suspect=suspect,
        uri=uri,
        key_inputs={
            "suspect": decision.suspect_hash,
            "samples": decision.samples_hash,
            "policy": policy.hash(),
            "configuration": digest("d"),
            "seed": 0,
        },
        artifacts={name: tmp_path / name for name in ("decision.json", "scorecard.json")},
    )
