"""All checks of the gate; importing this package registers them in the order of the report."""

# isort: off
from modelmend.gate.checks import integrity, samples, power, accuracy, backdoor, privacy, cost

# isort: on
from modelmend.gate.checks.base import CHECKS, Case, GateCheck

__all__ = ["CHECKS", "Case", "GateCheck", "accuracy", "backdoor", "cost", "integrity", "power", "privacy", "samples"]
