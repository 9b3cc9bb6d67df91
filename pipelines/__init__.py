"""Pipelines that chain the components; compiled YAML lies beside each and is what both laptop and cluster run."""
