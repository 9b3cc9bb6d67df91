"""audit_privacy."""

from components.audit_privacy.component import audit_privacy

__all__ = ["audit_privacy"]
