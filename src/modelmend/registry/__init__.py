"""The MLflow registry: registration on evidence, lineage, aliases, signatures, verification."""
