"""report_failure."""

from components.report_failure.component import report_failure

__all__ = ["report_failure"]
