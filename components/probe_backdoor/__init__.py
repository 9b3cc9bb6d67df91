"""probe_backdoor."""

from components.probe_backdoor.component import probe_backdoor

__all__ = ["probe_backdoor"]
