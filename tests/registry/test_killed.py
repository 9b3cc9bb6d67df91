"""Killed between any two calls to MLflow, a repeated registration completes the same version."""

from __future__ import annotations

from typing import Any

import pytest

from modelmend.registry import register as registering
from tests.registry.conftest import Case

STEPS = [
    ("create_registered_model", 1),
    ("create_run", 1),
    ("log_artifacts", 1),
    ("log_batch", 1),
    ("log_artifact", 1),
    ("create_model_version", 1),
    ("set_model_version_tag", 1),
    ("set_model_version_tag", 8),
    ("set_registered_model_tag", 1),
    ("set_registered_model_alias", 1),
    ("set_terminated", 1),
    ("set_model_version_tag", 9),
]
LAST = [("create_model_version", 1), ("set_registered_model_alias", 1), ("set_model_version_tag", 9)]
"""Killed after these too; after any other step is before the next."""


class Killed(BaseException):
    """The process ends here."""


class Dying:
    """An MLflow client that dies around the n-th call of one method."""

    def __init__(self, client: Any, method: str, number: int, *, after: bool) -> None:
        self.client, self.method, self.left, self.after = client, method, number, after

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.client, name)
        if name != self.method:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Killed
            result = real(*args, **kwargs)
            if self.left == 0:
                raise Killed
            return result

        return call


@pytest.mark.parametrize(
    ("method", "number", "after"), [*((*step, False) for step in STEPS), *((*step, True) for step in LAST)]
)
def test_a_repeated_call_completes_the_same_version(case: Case, monkeypatch, method, number, after):
    real = registering.client
    monkeypatch.setattr(registering, "client", lambda uri: Dying(real(uri), method, number, after=after))
    with pytest.raises(Killed):
        case.register()
    monkeypatch.setattr(registering, "client", real)
    done = method == "set_model_version_tag" and number == 9 and after
    assert case.register().status == ("existing" if done else "registered")
    assert [str(item.version) for item in case.versions()] == ["1"]
    assert case.tags()["modelmend.status"] == "registered"
    assert case.alias() == "1"
    assert len(case.mlflow.search_runs([case.mlflow.get_run(case.versions()[0].run_id).info.experiment_id])) == 1


def test_until_it_is_complete_a_version_has_no_alias(case: Case, monkeypatch):
    real = registering.client
    monkeypatch.setattr(registering, "client", lambda uri: Dying(real(uri), "create_model_version", 1, after=True))
    with pytest.raises(Killed):
        case.register()
    assert case.tags()["modelmend.status"] == "pending"
    assert case.tags()["modelmend.registration_key"]
    assert case.alias() is None
