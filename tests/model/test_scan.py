from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modelmend.model.scan import ScanReport, scan
from tests.model.hostile import Net, edited_graph, rewritten


def _kinds(report: ScanReport) -> set[tuple[str, str]]:
    return {(issue.severity, issue.kind) for issue in report.issues}


def test_plain_files_are_clean(clean: Path, tmp_path: Path) -> None:
    save_file(Net().state_dict(), tmp_path / "m.safetensors")
    torch.save(Net().state_dict(), tmp_path / "m.pth")
    torch.save({"epoch": 1, "state_dict": Net().state_dict()}, tmp_path / "c.pth")
    for path in (clean, tmp_path / "m.safetensors", tmp_path / "m.pth", tmp_path / "c.pth"):
        report = scan(path)
        assert (report.exit_code, report.issues, report.errors) == (0, (), ())
        assert report.scanned == (path.name,)


def test_what_was_ignored_is_said(clean: Path) -> None:
    assert any("source lines" in line for line in scan(clean).skipped)
    assert any("sample input" in line for line in scan(clean).skipped)


def test_whole_pickled_module_is_a_finding_with_its_classes(tmp_path: Path) -> None:
    torch.save(Net(), tmp_path / "m.pth")
    report = scan(tmp_path / "m.pth")
    assert report.exit_code == 1
    assert [i.severity for i in report.issues] == ["high", "medium"]
    assert "tests.model.hostile.Net" in report.issues[0].what


@pytest.mark.parametrize(
    ("named", "severity"),
    [
        ("os system", "critical"),
        ("builtins eval", "critical"),
        ("torch.hub load", "critical"),
        ("torch.serialization os.system", "critical"),
        ("somewhere Thing", "high"),
        ("torch.nn.modules.linear Linear", "medium"),
        ("collections OrderedDict", None),
    ],
)
def test_severity_follows_what_a_name_could_do(named: str, severity: str | None, tmp_path: Path) -> None:
    module, name = named.split()
    text = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode()
    (tmp_path / "m.pkl").write_bytes(text + b"\x93)R.")
    assert [i.severity for i in scan(tmp_path / "m.pkl").issues] == ([severity] if severity else [])


def test_extra_member_of_an_archive_is_a_finding(clean: Path, tmp_path: Path) -> None:
    path = rewritten(clean, tmp_path / "m.pt2", lambda n, c: c, {"data/aotinductor/model/x.so": b"\x7fELF"})
    assert _kinds(scan(path)) == {("high", "unexpected part")}


def test_container_types_and_foreign_operators_are_findings(clean: Path, tmp_path: Path) -> None:
    def edit(program: dict) -> None:  # type: ignore[type-arg]
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.evil.run.default"
        spec = json.dumps([1, {"type": "os.system", "context": "null", "children_spec": []}])
        program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = spec

    report = scan(edited_graph(clean, tmp_path / "m.pt2", edit))
    assert _kinds(report) == {("high", "operator"), ("high", "container type")}


def test_directory_report_names_files_and_lines(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "code").mkdir()
    (tmp_path / "data" / "model.pt2").write_bytes(clean.read_bytes())
    (tmp_path / "data" / "pickle_module_info.txt").write_text("evil_loader")
    (tmp_path / "code" / "x.py").write_text("")
    (tmp_path / "requirements.txt").write_text("evil\n")
    (tmp_path / "MLmodel").write_text("flavors:\n  python_function:\n    loader_module: evil_loader\n    code: code\n")
    report = scan(tmp_path)
    assert {(i.where, i.kind) for i in report.issues} == {
        ("data/pickle_module_info.txt", "loader"),
        ("code/x.py", "code"),
        ("MLmodel", "code reference"),
    }
    assert report.issues[0].severity == "critical"
    assert any(line.startswith("requirements.txt") for line in report.skipped)
    assert "data/model.pt2" in report.scanned


@pytest.mark.parametrize(("name", "code"), [("README.md", 3), ("empty", 3)])
def test_nothing_to_scan_is_exit_code_3(name: str, code: int, tmp_path: Path) -> None:
    (tmp_path / name).write_text("" if name == "empty" else "text\n" * 5)
    assert scan(tmp_path / name).exit_code == code
    assert scan(tmp_path).exit_code == 3


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    assert scan(tmp_path / "nowhere.pt2").exit_code == 2


def test_torchscript_is_a_finding(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "m.pt")
    assert _kinds(scan(tmp_path / "m.pt")) == {("high", "code")}


def test_broken_archive_is_a_finding(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "m.pt2").write_bytes(clean.read_bytes() + b"x")
    assert _kinds(scan(tmp_path / "m.pt2")) == {("high", "refused")}


def test_report_is_a_record(tmp_path: Path) -> None:
    buffer = io.BytesIO(pickle.dumps(Net))
    (tmp_path / "m.pkl").write_bytes(buffer.getvalue())
    report = scan(tmp_path / "m.pkl")
    report.write(tmp_path / "report.json")
    assert ScanReport.read(tmp_path / "report.json") == report
