"""fine_tune."""

from components.fine_tune.component import fine_tune

__all__ = ["fine_tune"]
