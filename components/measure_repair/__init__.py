"""measure_repair."""

from components.measure_repair.component import measure_repair

__all__ = ["measure_repair"]
