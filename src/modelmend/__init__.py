"""modelmend: repair a suspect PyTorch classifier and let it into the registry only on evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from modelmend.api import RepairResult, load, repair

__all__ = ["RepairResult", "__version__", "load", "repair"]


def __getattr__(name: str) -> Any:
    """Load the public functions on first use, so that importing the package stays cheap."""
    if name in {"RepairResult", "load", "repair"}:
        from modelmend import api

        return getattr(api, name)
    raise AttributeError(f"module 'modelmend' has no attribute {name!r}")
