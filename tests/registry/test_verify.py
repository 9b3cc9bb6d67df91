import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from modelmend.errors import RegistryError
from modelmend.gate.policy import parse_policy
from modelmend.registry import register
from modelmend.registry.connect import download
from modelmend.registry.register import register_plain
from modelmend.registry.verify import VerifyReport, verify
from tests.registry.conftest import NAME, Case, decide, make_case, request_of


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    plain = serialization.NoEncryption()
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption_algorithm=plain)
    )
    subject = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, subject))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path, "signer")


@pytest.fixture
def signed(case: Case, keys: tuple[Path, Path]) -> Case:
    case.key_file = keys[0]
    case.register()
    return case


def stored(case: Case, tmp_path: Path) -> Path:
    return download(case.versions()[0].source, tmp_path / "copy", case.uri)


@pytest.fixture(scope="module")
def original(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A signed model directory as it is stored, and the public key."""
    work = tmp_path_factory.mktemp("signed")
    private, public = make_keys(work, "signer")
    case, folder = make_case(model_file, "sqlite:///unused", work), work / "model"
    register._build(request_of(case, private), folder)
    return folder, public


def failed(report: VerifyReport) -> set[str]:
    return {check.name for check in report.checks if check.ok is False}


def test_a_signed_version_is_verified_by_number_and_by_alias(signed: Case, keys):
    for target in (f"models:/{NAME}/1", f"models:/{NAME}@candidate"):
        report = verify(target, tracking_uri=signed.uri, public_key=keys[1])
        assert report.status == "verified", report
    assert signed.tags()["modelmend.signed"] == "true"


def test_without_a_public_key_agreement_is_all_that_is_claimed(signed: Case):
    assert verify(f"models:/{NAME}/1", tracking_uri=signed.uri).status == "unsigned"


def test_an_unsigned_version_does_not_verify_against_a_key(case: Case, keys):
    case.register()
    assert verify(f"models:/{NAME}/1", tracking_uri=case.uri).status == "unsigned"
    assert failed(verify(f"models:/{NAME}/1", tracking_uri=case.uri, public_key=keys[1])) == {"signature"}


def test_another_persons_key_does_not_verify(signed: Case, tmp_path):
    report = verify(f"models:/{NAME}/1", tracking_uri=signed.uri, public_key=make_keys(tmp_path, "other")[1])
    assert failed(report) == {"signature"}


def test_a_downloaded_directory_verifies_by_itself(signed: Case, keys, tmp_path):
    folder = stored(signed, tmp_path)
    (folder / "registered_model_meta").write_text("model_name: signs\n")
    assert verify(folder, public_key=keys[1]).status == "verified"


def edit_statement(folder: Path, **changes) -> None:
    file = folder / "modelmend" / "statement.json"
    said = json.loads(file.read_text())
    said["predicate"].update(changes)
    file.write_text(json.dumps(said))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda d: (d / "data" / "model.pth").write_bytes(b"x"), {"files", "signature"}),
        (lambda d: (d / "requirements.txt").write_text("evil\n"), {"signature"}),
        (lambda d: (d / "new.py").write_text("import os"), {"signature"}),
        (lambda d: (d / "data" / "model.pt2").write_bytes(b"PK"), {"model", "signature"}),
        (lambda d: (d / "data" / "model.pt2").unlink(), {"model", "signature"}),
        (lambda d: (d / "modelmend" / "statement.json").unlink(), {"statement", "signature"}),
        (lambda d: (d / "modelmend" / "statement.json").write_text("{}"), {"statement", "signature"}),
        (lambda d: (d / "modelmend" / "model.sig").unlink(), {"signature"}),
        (lambda d: (d / "modelmend" / "model.sig").write_text("{}"), {"signature"}),
        (lambda d: edit_statement(d, decision_hash="sha256:" + "0" * 64), {"decision", "signature"}),
        (lambda d: edit_statement(d, policy={"hash": "x", "content": {}}), {"decision", "signature"}),
        (lambda d: edit_statement(d, decision={}), {"decision", "signature"}),
        (lambda d: edit_statement(d, content_hash="sha256:" + "0" * 64), {"model", "decision", "signature"}),
    ],
)
def test_every_change_to_a_stored_model_is_found(original: tuple[Path, Path], tmp_path, spoil, found):
    folder = tmp_path / "model"
    shutil.copytree(original[0], folder)
    spoil(folder)
    report = verify(folder, public_key=original[1])
    assert report.status == "failed"
    assert failed(report) == found


def test_another_model_with_a_matching_statement_fails_at_the_registry(case: Case, other_file, tmp_path):
    case.register()
    source = Path(case.versions()[0].source.removeprefix("file://"))
    case.register(
        decision=decide(case.policy, other_file), model_path=other_file, key_inputs={**case.key_inputs, "seed": 1}
    )
    other = Path(case.versions()[1].source.removeprefix("file://"))
    for name in ("data/model.pt2", "modelmend/statement.json", "MLmodel"):
        (source / name).write_bytes((other / name).read_bytes())
    assert verify(source).status == "unsigned"
    assert failed(verify(f"models:/{NAME}/1", tracking_uri=case.uri)) == {"tags"}


def test_a_version_that_modelmend_did_not_register_fails(case: Case):
    register_plain(case.model_path, NAME, case.uri)
    assert {"statement", "status"} <= failed(verify(f"models:/{NAME}/1", tracking_uri=case.uri))


@pytest.mark.parametrize(
    "target", ["models:/signs", "models:/none/1", "models:/signs@gone", "/nowhere", "models:/signs/9"]
)
def test_a_target_that_is_not_there_is_an_error(case: Case, target):
    with pytest.raises(RegistryError):
        verify(target, tracking_uri=case.uri)


def test_a_policy_can_require_a_signature(case: Case, keys, model_file):
    policy = parse_policy("registry: {require_signature: true}", where="t")
    decision = decide(policy, model_file)
    inputs = {**case.key_inputs, "policy": policy.hash()}
    with pytest.raises(RegistryError, match="requires a signature"):
        case.register(decision=decision, policy=policy, key_inputs=inputs)
    assert case.register(decision=decision, policy=policy, key_inputs=inputs, key_file=keys[0]).status == "registered"


def test_a_key_that_is_no_key_is_an_error(case: Case, tmp_path, monkeypatch):
    bad = tmp_path / "bad.pem"
    bad.write_text("not a key")
    with pytest.raises(RegistryError, match="cannot sign"):
        case.register(key_file=bad)
    monkeypatch.setenv("MODELMEND_SIGNING_KEY", str(tmp_path / "none.pem"))
    with pytest.raises(RegistryError, match="not there"):
        case.register()
