from typing import Any

import pytest

from modelmend.errors import RegistryError
from modelmend.registry import aliases
from modelmend.registry.connect import client
from modelmend.registry.register import register_plain
from tests.registry.conftest import NAME, Case


@pytest.fixture
def three(uri: str) -> Any:
    """A client with three versions that passed."""
    mlflow = client(uri)
    mlflow.create_registered_model(NAME)
    for number in ("1", "2", "3"):
        mlflow.create_model_version(NAME, f"/nowhere/{number}", tags={"modelmend.status": "registered"})
        aliases.place(mlflow, NAME, "candidate", number, reason="passed")
    return mlflow


def test_every_move_is_recorded_with_who_when_and_why(three: Any, uri: str):
    aliases.approve(NAME, "2", by="Ada L.", reason="pilot went well", tracking_uri=uri)
    move = aliases.history(NAME, "production", tracking_uri=uri)[-1]
    assert (move.number, move.action, move.before, move.after) == (1, "approve", None, "2")
    assert (move.by, move.reason) == ("Ada L.", "pilot went well")
    assert move.at.endswith("Z")
    assert three.get_model_version(NAME, "2").tags["modelmend.approved_by"] == "Ada L."
    assert aliases.current(NAME, "production", tracking_uri=uri) == "2"
    registered = aliases.history(NAME, "candidate", tracking_uri=uri)
    assert [move.after for move in registered] == ["1", "2", "3"]


def test_rollback_goes_one_back_and_again_one_more(three: Any, uri: str):
    for version in ("1", "2", "3"):
        aliases.approve(NAME, version, by="Ada", tracking_uri=uri)
    assert aliases.rollback(NAME, by="Bob", tracking_uri=uri).after == "2"
    assert aliases.rollback(NAME, by="Bob", tracking_uri=uri).after == "1"
    assert aliases.current(NAME, "production", tracking_uri=uri) == "1"
    with pytest.raises(RegistryError, match="no earlier version"):
        aliases.rollback(NAME, by="Bob", tracking_uri=uri)


def test_a_move_after_a_rollback_goes_back_to_where_it_came_from(three: Any, uri: str):
    for version in ("1", "2"):
        aliases.approve(NAME, version, by="Ada", tracking_uri=uri)
    aliases.rollback(NAME, by="Bob", tracking_uri=uri)
    aliases.approve(NAME, "3", by="Ada", tracking_uri=uri)
    assert aliases.rollback(NAME, by="Bob", tracking_uri=uri).after == "1"


def test_a_rollback_does_not_guess_after_a_move_that_was_not_recorded(three: Any, uri: str):
    for version in ("1", "2"):
        aliases.approve(NAME, version, by="Ada", tracking_uri=uri)
    three.set_registered_model_alias(NAME, "production", "3")
    with pytest.raises(RegistryError, match="outside of modelmend"):
        aliases.rollback(NAME, by="Bob", tracking_uri=uri)


def test_rollback_without_history_says_so(case: Case):
    case.register()
    with pytest.raises(RegistryError, match="no recorded history"):
        aliases.rollback(NAME, by="Bob", tracking_uri=case.uri)


def test_only_a_version_that_passed_can_be_approved(case: Case):
    register_plain(case.model_path, NAME, case.uri)
    with pytest.raises(RegistryError, match="not passed the gate"):
        aliases.approve(NAME, "1", by="Ada", tracking_uri=case.uri)


@pytest.mark.parametrize(("version", "by"), [("99", "Ada"), ("1", " ")])
def test_an_approval_needs_a_version_and_a_person(case: Case, version, by):
    case.register()
    with pytest.raises(RegistryError):
        aliases.approve(NAME, version, by=by, tracking_uri=case.uri)
