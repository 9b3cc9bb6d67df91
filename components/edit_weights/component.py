"""Component: activation-guided weight editing."""

from kfp import dsl

from components.base import component


@component
def edit_weights(
    suspect: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Dataset],
    evidence: dsl.Input[dsl.Artifact],
    pruned: dsl.Input[dsl.Model],
    edited: dsl.Output[dsl.Model],
    seed: int = 0,
):
    """Edit the weights that still answer candidate triggers, guided by activations; keep the exact delta.

    Args:
        suspect: Inspection clone.
        samples: Checked samples; repair and select splits are read.
        evidence: Probe evidence with the candidate triggers.
        pruned: Pruned clone.
        edited: Edited clone with its delta and log.
        seed: Seed of the repair step.
    """
    from modelmend import steps

    edited.metadata.update(
        steps.edit_weights(suspect.path, samples.path, evidence.path, pruned.path, edited.path, seed=seed)
    )
