"""register_model."""

from components.register_model.component import register_model

__all__ = ["register_model"]
