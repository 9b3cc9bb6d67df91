import time
from pathlib import Path

import pytest

from modelmend.errors import RegistryError
from modelmend.registry.connect import client, redacted, talking_to, tracking_uri_or_default
from modelmend.registry.register import register_plain
from tests.registry.conftest import Case


def test_an_unreachable_server_ends_soon_and_is_named_without_its_password(case: Case, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    started = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        case.register(tracking_uri="http://me:secret@127.0.0.1:9")
    assert time.monotonic() - started < 20
    assert caught.value.where == "http://127.0.0.1:9"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("uri", ["sqlite:////proc/none/mlflow.db", "nonsense://x", "sqlite:///{tmp}/text.db"])
def test_an_unusable_store_is_a_registry_error(case: Case, tmp_path, uri):
    (tmp_path / "text.db").write_text("this is no database, but a text that is long enough to be read as one" * 20)
    with pytest.raises(RegistryError):
        case.register(tracking_uri=uri.format(tmp=tmp_path))


def test_no_server_at_all_says_how_to_name_one(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"):
        tracking_uri_or_default(None)


def test_the_environment_names_the_server(case: Case, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", case.uri)
    assert case.register(tracking_uri=None).status == "registered"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://user:pw@host:5000/p?token=1", "https://host:5000/p"),
        ("postgresql://me:pw@db/mlflow", "postgresql://db/mlflow"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
    ],
)
def test_secrets_are_taken_out_of_uris(uri, shown):
    assert redacted(uri) == shown


def test_the_users_own_limits_are_kept(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    with talking_to("sqlite:///x"):
        import os

        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


def test_a_module_is_registered_as_mlflow_saves_it(case: Case, tmp_path):
    from modelmend.model.pt2 import read_pt2
    from modelmend.registry.connect import download
    from tests.registry.conftest import SHAPE, small_net

    version = register_plain(small_net(), "plain", case.uri, input_shape=SHAPE, alias="production")
    assert version == "1"
    found = case.mlflow.get_model_version_by_alias("plain", "production")
    stored = download(found.source, tmp_path / "stored", case.uri)
    assert read_pt2(stored / "data" / "model.pt2") is not None


def test_a_database_is_moved_in_whole_or_not_at_all(tmp_path: Path, monkeypatch):
    import mlflow

    def killed(**_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(mlflow, "MlflowClient", killed)
        with pytest.raises(KeyboardInterrupt):
            client(f"sqlite:///{tmp_path}/deep/mlflow.db")
    assert not list((tmp_path / "deep").iterdir())
    assert client(f"sqlite:///{tmp_path}/deep/mlflow.db").search_experiments()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["mlflow.db"]
