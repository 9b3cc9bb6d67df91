"""The gate: policy, checks, verdict."""
