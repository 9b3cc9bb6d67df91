"""One plain function per component: artifact directories in, artifact directories out.

Components, the in-process runner and a platform team's own pipelines call these; nothing here knows Kubeflow.
"""

from __future__ import annotations

from modelmend.steps.gating import gate_repair, register_model
from modelmend.steps.intake import import_model, validate_samples
from modelmend.steps.measuring import audit_privacy, measure_repair
from modelmend.steps.mending import edit_weights, fine_tune, prune_neurons
from modelmend.steps.probing import extract_activations, probe_backdoor
from modelmend.steps.reporting import report_failure, write_report

__all__ = [
    "audit_privacy",
    "edit_weights",
    "extract_activations",
    "fine_tune",
    "gate_repair",
    "import_model",
    "measure_repair",
    "probe_backdoor",
    "prune_neurons",
    "register_model",
    "report_failure",
    "validate_samples",
    "write_report",
]
