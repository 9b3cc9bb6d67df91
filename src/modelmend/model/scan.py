"""What a model file holds beyond tensors: found by reading it as data, nothing is run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modelmend.errors import InputError, ModelmendError, ModelRefused, ModelUnsupported, printable
from modelmend.model.archive import Archive
from modelmend.model.globals import Severity, severity
from modelmend.model.operators import CHECKS, IN_PLACE, OPERATORS, SYMBOLIC
from modelmend.model.outputs import outputs_probabilities
from modelmend.model.payload import parse_json
from modelmend.model.pt2 import MODEL, SAMPLE_INPUTS, expected, read_pt2
from modelmend.model.safetensor import read_safetensors
from modelmend.model.source import kind_of
from modelmend.model.torchfile import TorchFile, read_torch_bytes, read_torch_file
from modelmend.records import Record

__all__ = ["Issue", "ScanReport", "outputs_probabilities", "scan"]

MAX_ISSUES = 200
_SYMBOLS = re.compile(r"[\s0-9A-Za-z_+\-*/%(),.=']{0,2000}")
_CALL = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*)\s*\(")
_SYMPY = "Symbol Integer Mul Add Pow Mod Min Max FloorDiv Rational ModularIndexing CleanDiv PythonMod"
_MODEL_SUFFIXES = frozenset((".pt2", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".safetensors"))
_CODE_KEYS = re.compile(r"^\s*(code|loader_module|code_paths?|python_model|pickle_module_name)\s*:\s*(\S.*)$")
_STOCK_LOADERS = ("mlflow.pytorch", "null", "mlflow.pytorch.pickle_module", "mlflow.torchscript")


class Issue(Record):
    """One finding."""

    severity: Severity
    kind: str
    where: str
    what: str


class ScanReport(Record):
    """What was found, what could not be read, what was passed over."""

    issues: tuple[Issue, ...] = ()
    errors: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    scanned: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings, 2 error, 3 nothing scanned."""
        if self.issues:
            return 1
        if self.errors:
            return 2
        return 0 if self.scanned else 3


class _Findings:
    def __init__(self, read: bool) -> None:
        self.read = read
        self.issues: list[Issue] = []
        self.errors: list[str] = []
        self.skipped: list[str] = []
        self.scanned: list[str] = []
        self._seen: set[tuple[str, ...]] = set()

    def add(self, level: Severity, kind: str, where: str, what: str) -> None:
        key = (level, kind, printable(where[:300]), printable(what[:500]))
        if len(self._seen) < MAX_ISSUES and key not in self._seen:
            self._seen.add(key)
            self.issues.append(Issue(severity=level, kind=kind, where=key[2], what=key[3]))


def scan(path: str | Path, *, read: bool = True) -> ScanReport:
    """Look at a model file, or at every file of a model directory, without running any of it.

    Args:
        path: A file or a directory.
        read: Also build each ``.pt2`` model, so that a file that `load` would refuse is a finding.

    Returns:
        The report. Issues are what data alone does not need: classes and functions that a pickle names, pickled
        weights, unexpected members, operators that are not allowed, strings that the stock loader evaluates, code in
        an MLflow directory. What the reader passes over without harm is under ``skipped``.
    """
    path = Path(path)
    found = _Findings(read)
    if not path.exists():
        return ScanReport(errors=(f"{path}: there is no such file",))
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if not p.is_dir()):
            _scan_in_directory(file, path, found)
    else:
        _scan_file(path, path.name, found)
    order = ("critical", "high", "medium", "low")
    return ScanReport(
        issues=tuple(sorted(found.issues, key=lambda issue: order.index(issue.severity))),
        errors=tuple(map(printable, found.errors)),
        skipped=tuple(map(printable, found.skipped)),
        scanned=tuple(map(printable, found.scanned)),
    )


def _scan_in_directory(file: Path, root: Path, found: _Findings) -> None:
    name = file.relative_to(root).as_posix()
    if file.is_symlink() and not file.resolve().is_relative_to(root.resolve()):
        found.add("high", "link", name, "a link that leads out of the directory")
    elif not file.is_file():
        found.add("medium", "odd file", name, "neither a file nor a directory, such as a pipe or a broken link")
    elif file.suffix in _MODEL_SUFFIXES:
        _scan_file(file, name, found)
    elif name.startswith("code/") or file.suffix in (".py", ".pyc", ".so", ".dll", ".dylib"):
        found.add("high", "code", name, "code that the stock loader puts on the import path; it is not read")
    elif file.name in ("MLmodel", "pickle_module_info.txt"):
        _scan_settings(file, name, found)
    elif file.name in ("requirements.txt", "conda.yaml", "python_env.yaml"):
        found.skipped.append(f"{name}: requirements are never installed")
    else:
        found.skipped.append(f"{name}: not a model file")


def _scan_settings(file: Path, name: str, found: _Findings) -> None:
    """Lines of MLflow's own files that choose code; they are never followed."""
    with file.open("rb") as stream:
        text = stream.read(1 << 20).decode("utf-8", "replace")
    found.scanned.append(name)
    if file.name == "pickle_module_info.txt" and text.strip() not in ("pickle", *_STOCK_LOADERS):
        found.add("critical", "loader", name, f"the stock loader would import the module {text.strip()[:100]!r}")
    for line in text.splitlines() if file.name == "MLmodel" else []:
        match = _CODE_KEYS.match(line)
        if match and match[2].strip("'\" ") not in _STOCK_LOADERS:
            found.add("high", "code reference", name, f"{match[1]}: {match[2][:100]}")


def _scan_file(file: Path, name: str, found: _Findings) -> None:
    try:
        kind = kind_of(file)
        _SCANNERS[kind](file, name, found)
        found.scanned.append(name)
    except InputError as error:
        found.skipped.append(f"{name}: {error.message}")
    except ModelRefused as error:
        found.scanned.append(name)
        found.add("high", "refused", f"{name}: {error.field}" if error.field else name, error.message)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        found.scanned.append(name)
        found.add("high", "refused", name, f"the file is damaged ({type(error).__name__}: {str(error)[:100]})")
    except ModelmendError as error:
        if error.field == "code":
            found.scanned.append(name)
            found.add("high", "code", name, error.message)
        else:
            found.errors.append(f"{name}: {error.message}")


def _scan_safetensors(file: Path, name: str, found: _Findings) -> None:
    read_safetensors(file)


def _scan_torch(file: Path, name: str, found: _Findings) -> None:
    content = read_torch_file(file)
    _pickle_issues(content, name, found)
    for member in content.members:
        found.add("medium", "unexpected part", name, f"{member}: not part of a saved model, never read")


def _pickle_issues(content: TorchFile, where: str, found: _Findings) -> None:
    for named in content.names:
        called = named in content.called
        level = severity(named, called=called)
        if level is not None:
            verb = "calls" if called else "names"
            found.add(level, "pickle", where, f"{verb} {named}; the stock loader would import it")


def _scan_pt2(file: Path, name: str, found: _Findings) -> None:
    with Archive(file) as archive:
        for member in archive.members:
            if not expected(member):
                found.add(
                    "high", "unexpected part", f"{name}: {member}", "no plain export has it; compiled code or extras"
                )
        for folder in ("weights", "constants"):
            _payload_issues(archive, folder, name, found)
        program = parse_json(archive, MODEL)
        _program_issues(program, f"{name}: {MODEL}", found)
        if SAMPLE_INPUTS in archive.members:
            where = f"{name}: {SAMPLE_INPUTS}"
            try:
                _pickle_issues(read_torch_bytes(archive.read(SAMPLE_INPUTS), where), where, found)
            except ModelmendError as error:
                found.add("high", "sample input", where, f"cannot be read as data: {error.message}")
            found.skipped.append(f"{where}: the sample input is never opened")
    if found.read and not found.issues:
        try:
            read_pt2(file)
        except ModelUnsupported as error:
            found.skipped.append(f"{name}: cannot be repaired: {error.message}")


def _payload_issues(archive: Archive, folder: str, name: str, found: _Findings) -> None:
    config = f"data/{folder}/model_{folder}_config.json"
    if config not in archive.members:
        return
    entries = parse_json(archive, config).get("config")
    for fqn, entry in entries.items() if isinstance(entries, dict) else []:
        if not isinstance(entry, dict) or entry.get("use_pickle") is not False:
            found.add(
                "critical", "pickled tensor", f"{name}: {config}", f"{fqn[:100]} would be unpickled by the stock loader"
            )


def _program_issues(program: dict[str, Any], where: str, found: _Findings) -> None:
    if program.get("guards_code"):
        found.add("critical", "guard code", where, "source text that the stock loader runs")
    module = program.get("graph_module")
    graph = module.get("graph") if isinstance(module, dict) else None
    if not isinstance(module, dict) or not isinstance(graph, dict):
        raise ModelRefused("the graph is missing", field=MODEL)
    for expression in _strings_under(program, "expr_str"):
        if not _harmless(expression):
            found.add("critical", "symbolic text", where, f"the stock loader evaluates {expression[:120]!r}")
    if graph.get("custom_obj_values") or module.get("treespec_namedtuple_fields"):
        found.add("high", "custom object", where, "the graph refers to custom objects")
    for text in (s for key in ("in_spec", "out_spec") for s in _strings_under(module, key)):
        kinds = set(re.findall(r'"type": "([^"]{1,200})"', text)) - {"builtins.tuple", "builtins.list", "builtins.dict"}
        for kind in sorted(kinds - {"collections.OrderedDict"}):
            found.add("high", "container type", where, f"{kind}: the stock loader looks up and builds this type")
    traces = 0
    nodes = graph.get("nodes")
    for node in nodes if isinstance(nodes, list) else []:
        target = str(node.get("target")) if isinstance(node, dict) else "?"
        if not (target in OPERATORS or target in IN_PLACE or target in SYMBOLIC or target in CHECKS):
            outside = not target.startswith("torch.ops.aten.")
            found.add("high" if outside else "medium", "operator", where, f"{target[:120]} is not on the allow-list")
        traces += isinstance(node, dict) and "stack_trace" in (node.get("metadata") or {})
    if traces:
        found.skipped.append(f"{where}: source lines of {traces} nodes are not read")


def _harmless(expression: str) -> bool:
    """Whether a symbolic expression is arithmetic only; looked at for its characters and length first."""
    if not _SYMBOLS.fullmatch(expression) or "__" in expression:
        return False
    return set(_CALL.findall(expression)) <= set(_SYMPY.split())


def _strings_under(value: Any, key: str) -> Iterator[str]:
    """Every text stored under ``key``, anywhere."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if isinstance(item.get(key), str):
                yield item[key]
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


_SCANNERS: dict[str, Callable[[Path, str, _Findings], None]] = {
    "pt2": _scan_pt2,
    "torch": _scan_torch,
    "safetensors": _scan_safetensors,
}
