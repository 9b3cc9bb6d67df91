"""Component: fine-tuning, the fallback."""

from kfp import dsl

from components.base import component


@component
def fine_tune(
    suspect: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Dataset],
    evidence: dsl.Input[dsl.Artifact],
    edited: dsl.Input[dsl.Model],
    tuned: dsl.Output[dsl.Model],
    seed: int = 0,
):
    """Fine-tune a repaired clone that the gate sent back; it is judged once more.

    Args:
        suspect: Inspection clone.
        samples: Checked samples; repair and select splits are read.
        evidence: Probe evidence with the candidate triggers.
        edited: Edited clone that did not pass.
        tuned: Fine-tuned clone with its delta and log.
        seed: Seed of the training.
    """
    from modelmend import steps

    tuned.metadata.update(
        steps.fine_tune(suspect.path, samples.path, evidence.path, edited.path, tuned.path, seed=seed)
    )
