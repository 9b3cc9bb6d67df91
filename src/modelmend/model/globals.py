"""How bad a class or function is that a pickle names: harmless ones are listed, everything else is a finding."""

from __future__ import annotations

from typing import Literal

from modelmend.model.lift import REBUILDERS
from modelmend.model.pickles import Global

Severity = Literal["critical", "high", "medium", "low"]

_HARMLESS = REBUILDERS | {
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch.storage.UntypedStorage",
    "torch.serialization._get_layout",
    "__builtin__.set",
    "builtins.set",
}
_RUNS_CODE = """
__builtin__ builtins os posix nt subprocess sys importlib runpy shutil socket pty commands webbrowser pip operator
functools ctypes asyncio code codeop pdb bdb timeit profile cProfile trace types marshal pickle _pickle dill cloudpickle
joblib tempfile threading multiprocessing concurrent inspect doctest pydoc site venv ensurepip linecache logging urllib
http requests ftplib smtplib telnetlib xmlrpc platform signal resource gc atexit copyreg nltk torch.hub torch.jit
torch._dynamo torch._inductor torch.utils.cpp_extension torch.utils.collect_env numpy.testing numpy.f2py
"""
_ELEMENT_TYPES = """
float16 float32 float64 bfloat16 int8 int16 int32 int64 uint8 bool strided contiguous_format preserve_format
"""


def severity(named: Global, *, called: bool) -> Severity | None:
    """Severity of a name in a pickle; ``None`` for what tensors alone need.

    Args:
        named: The class or function.
        called: Whether the stock loader would call it.
    """
    text = str(named)
    storage = named.name.endswith("Storage") and named.module in ("torch", "torch.storage", "torch.cuda")
    if text in _HARMLESS or storage:
        return None
    if named.module == "torch" and named.name in _ELEMENT_TYPES.split():
        return None
    prefixes = {".".join(named.module.split(".")[:n]) for n in range(1, 4)}
    if prefixes & set(_RUNS_CODE.split()) or "." in named.name:
        return "critical"
    if named.module.startswith("torch.nn."):
        return "medium"
    return "high" if called else "medium"
