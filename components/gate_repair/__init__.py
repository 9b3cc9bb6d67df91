"""gate_repair."""

from components.gate_repair.component import gate_repair

__all__ = ["gate_repair"]
