"""validate_samples."""

from components.validate_samples.component import validate_samples

__all__ = ["validate_samples"]
