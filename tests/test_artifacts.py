"""An artifact is whole or absent: half-written, killed, altered, foreign ones are never taken for results."""

import json
import signal
import subprocess
import sys
import time

import pytest

from modelmend.artifacts import MANIFEST, read_artifact, sha256_json, write_json, writing
from modelmend.errors import ArtifactError
from modelmend.metrics import count_passes
from modelmend.records import Measured, Preprocessing, Record

SCHEMA = "modelmend.test/1"


def write(path, text="weights", **more):
    with writing(path, SCHEMA, producer="make", **more) as folder:
        (folder / "in").mkdir()
        (folder / "in" / "m.bin").write_text(text)
        write_json(folder / "r.json", {"a": 1})
    return read_artifact(path, SCHEMA)


def test_a_whole_artifact_says_where_it_comes_from(tmp_path):
    first = write(tmp_path / "a", seed=3)
    with writing(tmp_path / "b", SCHEMA, producer="next", inputs={"model": first}) as folder:
        (folder / "x").write_text("x")
        count_passes(5, backward=True)
    second = read_artifact(tmp_path / "b", SCHEMA)
    assert second.inputs == {"model": first.digest}
    assert second.producer == "next"
    assert second.passes == 15
    assert first.seed == 3
    assert first.json("r.json") == {"a": 1}
    assert first.file("in/m.bin").read_text() == "weights"
    with pytest.raises(ArtifactError, match="no file 'q'"):
        first.file("q")


def test_the_digest_follows_the_content_alone(tmp_path):
    assert write(tmp_path / "a", seed=1).digest == write(tmp_path / "elsewhere", seed=2).digest
    assert write(tmp_path / "a").digest != write(tmp_path / "b", "other").digest


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), writing(tmp_path / "a", SCHEMA, producer="make") as folder:
        (folder / "x").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_result(tmp_path):
    old = write(tmp_path / "a")
    with pytest.raises(RuntimeError), writing(tmp_path / "a", SCHEMA, producer="make"):
        raise RuntimeError
    assert read_artifact(tmp_path / "a", SCHEMA).digest == old.digest


def test_half_written_is_not_whole(tmp_path):
    whole = write(tmp_path / "a")
    (whole.path / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match="no whole artifact"):
        read_artifact(tmp_path / "a", SCHEMA)
    with pytest.raises(ArtifactError, match="no whole artifact"):
        read_artifact(tmp_path / "none", SCHEMA)


@pytest.mark.parametrize("cut", [0, 1, 40, -3])
def test_half_a_manifest_is_not_whole(tmp_path, cut):
    manifest = write(tmp_path / "a").path / MANIFEST
    manifest.write_bytes(manifest.read_bytes()[:cut])
    with pytest.raises(ArtifactError, match="unreadable manifest"):
        read_artifact(tmp_path / "a", SCHEMA)


def alter(folder):
    (folder / "in" / "m.bin").write_text("weightz")


def remove(folder):
    (folder / "in" / "m.bin").unlink()


def add(folder):
    (folder / "in" / "m.bin.bak").write_text("x")


def swap(folder):
    (folder / "in" / "m.bin").rename(folder / "in" / "n.bin")


@pytest.mark.parametrize("change", [alter, remove, add, swap])
def test_changed_files_are_found_and_named(tmp_path, change):
    artifact = write(tmp_path / "a")
    change(artifact.path)
    with pytest.raises(ArtifactError, match="differ from the manifest") as caught:
        read_artifact(tmp_path / "a", SCHEMA)
    assert "in/" in caught.value.field


def test_a_manifest_changed_with_its_file_has_another_digest(tmp_path):
    artifact = write(tmp_path / "a")
    body = json.loads((artifact.path / MANIFEST).read_text())
    alter(artifact.path)
    body["files"]["in/m.bin"] = write(tmp_path / "b", "weightz").files["in/m.bin"]
    (artifact.path / MANIFEST).write_text(json.dumps(body))
    with pytest.raises(ArtifactError, match="digest"):
        read_artifact(tmp_path / "a", SCHEMA)


def test_another_schema_is_refused(tmp_path):
    write(tmp_path / "a")
    with pytest.raises(ArtifactError, match=r"'modelmend.test/1', not 'modelmend.other/1'"):
        read_artifact(tmp_path / "a", "modelmend.other/1")


def test_kill_in_the_middle_leaves_no_result(tmp_path):
    code = (
        "import sys, time\nfrom modelmend.artifacts import writing\n"
        f"with writing({str(tmp_path / 'a')!r}, {SCHEMA!r}, producer='make') as folder:\n"
        "    (folder / 'x').write_text('half')\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    finally:
        process.kill()
    assert not (tmp_path / "a").exists()
    for left in tmp_path.iterdir():
        with pytest.raises(ArtifactError):
            read_artifact(left, SCHEMA)
    assert write(tmp_path / "a").digest


def test_time_is_measured(tmp_path):
    with writing(tmp_path / "a", SCHEMA, producer="make"):
        time.sleep(0.05)
    assert 0.05 <= read_artifact(tmp_path / "a", SCHEMA).seconds < 5


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ArtifactError, match="cannot write here"),
        writing(tmp_path / "file" / "a", SCHEMA, producer="m"),
    ):
        pass


def test_nan_never_reaches_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        sha256_json([float("inf")])


class Example(Record):
    name: str
    measured: Measured


def test_records_turn_nan_into_not_measured(tmp_path):
    record = Example(name="a", measured=Measured(value=float("nan"), high=float("inf"), low=0.5))
    record.write(tmp_path / "r.json")
    back = Example.read(tmp_path / "r.json")
    assert (back.measured.value, back.measured.high, back.measured.low) == (None, None, 0.5)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('{"name": 3, "measured": {}}', "name"),
        ('{"name": "a", "measured": {}, "more": 1}', "more"),
        ("{", ""),
        ("", ""),
    ],
)
def test_records_name_the_bad_field(tmp_path, text, field):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(ArtifactError) as caught:
        Example.read(tmp_path / "r.json")
    assert caught.value.field == field
    assert "r.json" in caught.value.where


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="cannot read"):
        Example.read(tmp_path / "none.json")


def test_unusable_preprocessing_is_refused():
    with pytest.raises(ValueError, match="std must be positive"):
        Preprocessing(std=(0.5, 0.0))
    with pytest.raises(ValueError, match="low < high"):
        Preprocessing(input_range=(1.0, 0.0))
