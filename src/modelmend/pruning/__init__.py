"""Optimized neuron pruning: a graph of neurons, a learned policy, cuts with their evidence."""

from modelmend.pruning.onp import PruneResult, PruningConfig, prune

__all__ = ["PruneResult", "PruningConfig", "prune"]
