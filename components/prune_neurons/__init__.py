"""prune_neurons."""

from components.prune_neurons.component import prune_neurons

__all__ = ["prune_neurons"]
