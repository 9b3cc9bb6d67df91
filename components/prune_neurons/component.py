"""Component: optimized neuron pruning."""

from kfp import dsl

from components.base import component


@component
def prune_neurons(
    suspect: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Dataset],
    evidence: dsl.Input[dsl.Artifact],
    activations: dsl.Input[dsl.Artifact],
    pruned: dsl.Output[dsl.Model],
    seed: int = 0,
):
    """Prune the guilty neuron groups of a clone with a graph policy trained by reinforcement learning.

    Args:
        suspect: Inspection clone.
        samples: Checked samples; repair and select splits are read.
        evidence: Probe evidence with the candidate triggers.
        activations: Activation statistics.
        pruned: Pruned clone, search log and explanation.
        seed: Seed of policy, search and probes.
    """
    from modelmend import steps

    pruned.metadata.update(
        steps.prune_neurons(suspect.path, samples.path, evidence.path, activations.path, pruned.path, seed=seed)
    )
