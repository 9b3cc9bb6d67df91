"""Kubeflow Pipelines components of modelmend; each folder declares one, the work is in ``modelmend.steps``."""
