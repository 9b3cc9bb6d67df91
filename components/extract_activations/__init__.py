"""extract_activations."""

from components.extract_activations.component import extract_activations

__all__ = ["extract_activations"]
