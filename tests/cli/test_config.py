"""Options from a YAML file and from the command line, and what is refused before anything is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelmend.cli.main import main
from modelmend.cli.repair import build_request
from modelmend.errors import InputError, PolicyError
from modelmend.request import RepairRequest, check_request

TOLD = {"model_uri": "models:/a/1", "samples_uri": "s3://b/c", "seed": 0, "tracking_uri": "sqlite:///environment.db"}


def config(folder: Path, text: str) -> Path:
    (folder / "c.yaml").write_text(text, encoding="utf-8")
    return folder / "c.yaml"


def refusal(folder: Path, text: str) -> InputError:
    with pytest.raises(InputError) as error:
        build_request(TOLD, set(), config(folder, text))
    return error.value


def test_a_preprocessing_block_and_single_numbers_are_read(tmp_path: Path) -> None:
    file = config(tmp_path, "preprocessing:\n  mean: [0.4, 0.5, 0.6]\n  std: 0.25\nprobe: screen\n")
    request = build_request(TOLD, set(), file)
    assert (request.mean, request.std, request.probe_mode) == ((0.4, 0.5, 0.6), (0.25,), "screen")


def test_the_command_line_wins_over_the_file_even_with_a_default_value(tmp_path: Path) -> None:
    file = config(tmp_path, "seed: 5\n")
    assert build_request(TOLD, {"seed"}, file).seed == 0
    assert build_request(TOLD, set(), file).seed == 5


def test_the_file_wins_over_the_environment(tmp_path: Path) -> None:
    request = build_request(TOLD, set(), config(tmp_path, "tracking_uri: sqlite:///file.db\n"))
    assert request.tracking_uri == "sqlite:///file.db"


def test_samples_may_come_from_the_file(tmp_path: Path) -> None:
    file = config(tmp_path, "samples: s3://b/other\n")
    assert build_request({**TOLD, "samples_uri": ""}, set(), file).samples_uri == "s3://b/other"


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("preprocessing: hello\n", "preprocessing"),
        ("samples: ''\n", "samples"),
        ("preprocessing:\n  stdd: 1\n", "stdd"),
        ("- a\n", "config"),
        ("a: [\n", "config"),
        ("seed: five\n", "seed"),
    ],
)
def test_a_file_that_cannot_be_used_names_the_field_and_the_fix(tmp_path: Path, text: str, field: str) -> None:
    error = refusal(tmp_path, text)
    assert (error.field, bool(error.fix)) == (field, True)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(InputError, match="not YAML"):
        build_request(TOLD, set(), tmp_path / "c.yaml")


def test_a_file_named_like_a_packaged_policy_does_not_replace_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "strict").write_text("name: lax\n")
    assert build_request({**TOLD, "policy_uri": "strict"}, {"policy_uri"}, None).policy_uri == "strict"


def test_a_name_without_a_server_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    request = RepairRequest(model_uri="models:/a/1", samples_uri="s3://b/c", name="digits")
    with pytest.raises(InputError) as error:
        check_request(request)
    assert error.value.field == "tracking_uri"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///x.db")
    check_request(request)


def test_a_mistyped_policy_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("acuracy: {}\n")
    with pytest.raises(PolicyError, match="accuracy"):
        check_request(
            RepairRequest(model_uri="models:/a/1", samples_uri="s3://b/c", policy_uri=str(tmp_path / "p.yaml"))
        )


def test_a_preprocessing_that_is_not_finite_is_refused() -> None:
    from modelmend.steps.intake import preprocessing

    with pytest.raises(InputError) as error:
        preprocessing(mean=(float("nan"),))
    assert error.value.field == "mean"


def test_samples_under_a_path_that_kfp_corrupts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("kfp")
    (tmp_path / "m.pt2").write_bytes(b"x")
    (tmp_path / "python3.npz").write_bytes(b"x")
    arguments = ["repair", str(tmp_path / "m.pt2"), "--samples", str(tmp_path / "python3.npz")]
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--run-dir", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert "python3" in capsys.readouterr().err
