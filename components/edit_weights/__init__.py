"""edit_weights."""

from components.edit_weights.component import edit_weights

__all__ = ["edit_weights"]
