"""Component: stream the activations of every neuron group."""

from kfp import dsl

from components.base import component


@component
def extract_activations(
    suspect: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Dataset],
    evidence: dsl.Input[dsl.Artifact],
    activations: dsl.Output[dsl.Artifact],
):
    """Stream per-neuron statistics of clean and of probe-triggered samples.

    Args:
        suspect: Inspection clone.
        samples: Checked samples; the repair split is read.
        evidence: Probe evidence with the candidate triggers.
        activations: Moments, per-class means and quantiles a channel.
    """
    from modelmend import steps

    activations.metadata.update(steps.extract_activations(suspect.path, samples.path, evidence.path, activations.path))
