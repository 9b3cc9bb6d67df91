"""Storage: paths, S3 over HTTP, MLflow; whole or absent; every failure named within a bounded time."""

import contextlib
import socket
import threading
import time

import boto3
import pytest
from moto.server import ThreadedMotoServer

from modelmend import storage
from modelmend.errors import InputError, StorageError
from modelmend.samples.read import read_samples
from modelmend.storage import s3 as s3_files

KEYS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL", "AWS_PROFILE", "AWS_REGION")


@pytest.fixture(scope="module")
def server():
    served = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    served.start()
    yield "http://{}:{}".format(*served.get_host_and_port())
    served.stop()


@pytest.fixture
def s3(server, monkeypatch):
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    yield client
    for item in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=item["Key"])


def test_object_comes_and_goes(s3, tmp_path):
    (tmp_path / "m.bin").write_bytes(b"weights" * 1000)
    storage.put(tmp_path / "m.bin", "s3://bucket/a/m.bin")
    assert storage.exists("s3://bucket/a/m.bin")
    assert not storage.exists("s3://bucket/a/m")
    got = storage.fetch("s3://bucket/a/m.bin", tmp_path / "w")
    assert got.name == "m.bin"
    assert got.read_bytes() == b"weights" * 1000
    s3.put_object(Bucket="bucket", Key="a/m.bin", Body=b"new")
    assert storage.fetch("s3://bucket/a/m.bin", tmp_path / "w").read_bytes() == b"new"
    assert not list((tmp_path / "w").rglob(".part-*"))


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "MLFLOW_S3_ENDPOINT_URL"])
def test_endpoint_variables_are_honoured(s3, server, tmp_path, monkeypatch, name):
    s3.put_object(Bucket="bucket", Key="k", Body=b"1")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv(name, server)
    assert storage.fetch("s3://bucket/k", tmp_path).read_bytes() == b"1"


def test_folder_comes_and_goes_with_its_manifest_last(s3, tmp_path, monkeypatch):
    made = tmp_path / "made"
    (made / "in").mkdir(parents=True)
    for name in ("manifest.json", "a.bin", "in/z.bin"):
        (made / name).write_text(name)
    order = []
    s3.put_object(Bucket="bucket", Key="other/manifest.json", Body=b"old")
    s3.put_object(Bucket="bucket", Key="other/stale.bin", Body=b"old")
    real = s3_files._client

    def recording():
        client = real()
        upload = client.upload_file
        client.upload_file = lambda path, bucket, key: (order.append(key), upload(path, bucket, key))
        return client

    monkeypatch.setattr(s3_files, "_client", recording)
    storage.put(made, "s3://bucket/other/")
    assert order[-1] == "other/manifest.json"
    got = storage.fetch("s3://bucket/other", tmp_path / "w")
    files = {p.relative_to(got).as_posix(): p.read_text() for p in got.rglob("*") if p.is_file()}
    assert files == {name: name for name in ("manifest.json", "a.bin", "in/z.bin")}
    s3.put_object(Bucket="bucket", Key="mine/data.csv", Body=b"1")
    with pytest.raises(StorageError, match="in the way"):
        storage.put(made, "s3://bucket/mine")
    assert storage.fetch("s3://bucket/mine/data.csv", tmp_path).read_bytes() == b"1"


def test_keys_that_leave_the_folder_are_refused(s3, tmp_path):
    s3.put_object(Bucket="bucket", Key="p/../../evil", Body=b"1")
    with pytest.raises(StorageError, match="leave its folder"):
        storage.fetch("s3://bucket/p", tmp_path / "deep" / "w")
    assert not list(tmp_path.rglob("evil"))


def test_missing_objects_and_buckets_are_named(s3, tmp_path):
    for uri in ("s3://bucket/none", "s3://nobucket/k"):
        with pytest.raises(storage.NotFoundError) as caught:
            storage.fetch(uri, tmp_path)
        assert caught.value.where == uri
        assert caught.value.fix
        assert not storage.exists(uri)
    with pytest.raises(InputError, match="no bucket"):
        storage.fetch("s3://", tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_failed_download_leaves_the_old_copy(s3, tmp_path, monkeypatch):
    s3.put_object(Bucket="bucket", Key="k", Body=b"old")
    got = storage.fetch("s3://bucket/k", tmp_path)
    monkeypatch.setattr("modelmend.storage.s3.hashlib.md5", lambda **_: Wrong())
    with pytest.raises(StorageError, match="damaged"):
        storage.fetch("s3://bucket/k", tmp_path)
    assert got.read_bytes() == b"old"
    assert [p.name for p in got.parent.iterdir()] == ["k"]


class Wrong:
    def update(self, chunk):
        pass

    def hexdigest(self):
        return "0" * 32


def test_no_credentials_is_said(s3, tmp_path, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StorageError, match="no S3 credentials"):
        storage.fetch("s3://bucket/k", tmp_path)


@contextlib.contextmanager
def dropping_port():
    """A port that takes connections and closes them at once."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.settimeout(0.1)
        stop = threading.Event()

        def serve():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    sock.accept()[0].close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield sock.getsockname()[1]
        stop.set()
        thread.join()


def test_unreachable_endpoint_is_named_in_bounded_time(s3, tmp_path, monkeypatch):
    started = time.monotonic()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match=r"http://127.0.0.1:9 does not answer"):
        storage.fetch("s3://bucket/k", tmp_path)
    with dropping_port() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(StorageError, match="does not answer"):
            storage.exists("s3://bucket/k")
    assert time.monotonic() - started < 10


def test_samples_are_read_from_s3(s3, tmp_path):
    (tmp_path / "t.csv").write_text("a,label\n1,0\n2,1\n")
    storage.put(tmp_path / "t.csv", "s3://bucket/t.csv")
    assert read_samples("s3://bucket/t.csv", kind="raw").y.tolist() == [0, 1]


def test_local_folder_is_replaced_only_if_ours(tmp_path):
    made, there = tmp_path / "made", tmp_path / "there"
    made.mkdir()
    (made / "new").write_text("new")
    there.mkdir()
    (there / "precious").write_text("x")
    with pytest.raises(StorageError, match="in the way"):
        storage.put(made, there)
    assert (there / "precious").exists()
    (there / "manifest.json").write_text("{}")
    storage.put(made, f"file://{there}")
    assert [p.name for p in there.iterdir()] == ["new"]
    assert storage.fetch(f"file://{there}", tmp_path) == there


def test_interrupted_put_leaves_nothing(tmp_path, monkeypatch):
    made = tmp_path / "made"
    made.mkdir()
    (made / "a").write_text("a")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copytree", fail)
    with pytest.raises(StorageError, match="No space left"):
        storage.put(made, tmp_path / "there")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made"]


def test_odd_uris(tmp_path):
    with pytest.raises(InputError, match="gs://"):
        storage.fetch("gs://b/k", tmp_path)
    with pytest.raises(storage.NotFoundError, match="nothing is there"):
        storage.fetch(tmp_path / "none", tmp_path)
    with pytest.raises(StorageError, match="read only"):
        storage.put(tmp_path, "models:/a/1")
    assert storage.join("s3://bucket/", "/x/", "y") == "s3://bucket/x/y"
    assert storage.join(tmp_path, "x") == str(tmp_path / "x")
    assert storage.join("/", "x") == "/x"
    with pytest.raises(InputError, match="python3"):
        storage.check_kfp_path("/opt/python3.11/model.pt")
    storage.check_kfp_path("/opt/python/model.pt")


@pytest.fixture(scope="module")
def mlflow_store(tmp_path_factory):
    mlflow = pytest.importorskip("mlflow")
    root = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{root / 'm.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiment = client.create_experiment("e", artifact_location=(root / "artifacts").as_uri())
    run = client.create_run(experiment)
    (root / "model.pt2").write_bytes(b"graph")
    client.log_artifact(run.info.run_id, str(root / "model.pt2"), "model")
    client.create_registered_model("net")
    version = client.create_model_version("net", f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
    client.set_registered_model_alias("net", "live", version.version)
    return uri, run.info.run_id


def test_mlflow_uris_give_files(mlflow_store, tmp_path):
    uri, run = mlflow_store
    for name in ("models:/net/1", "models:/net@live", f"runs:/{run}/model"):
        got = storage.fetch(name, tmp_path, tracking_uri=uri)
        assert (got / "model.pt2").read_bytes() == b"graph"
        assert storage.exists(name, tracking_uri=uri)
    for name in ("models:/net/1/model.pt2", f"runs:/{run}/model/model.pt2"):
        assert storage.fetch(name, tmp_path, tracking_uri=uri).read_bytes() == b"graph"


def test_missing_mlflow_things_are_named(mlflow_store, tmp_path):
    uri, run = mlflow_store
    for name in ("models:/net/7", "models:/none/1", "models:/net@none", f"runs:/{run}/none", "runs:/abc/model"):
        with pytest.raises(storage.NotFoundError) as caught:
            storage.fetch(name, tmp_path, tracking_uri=uri)
        assert caught.value.where == name
        assert not storage.exists(name, tracking_uri=uri)
    with pytest.raises(InputError, match="no model version"):
        storage.fetch("models:/net/Production", tmp_path, tracking_uri=uri)


def test_unreachable_mlflow_is_named_in_bounded_time(mlflow_store, tmp_path):
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        storage.fetch("models:/net/1", tmp_path, tracking_uri="http://127.0.0.1:9")
    assert caught.value.where == "models:/net/1"
    assert "MLFLOW_TRACKING_URI" in caught.value.fix
    assert time.monotonic() - started < 20
