"""Component: look for a backdoor without knowing its trigger."""

from kfp import dsl

from components.base import component


@component
def probe_backdoor(
    suspect: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Dataset],
    evidence: dsl.Output[dsl.Artifact],
    mode: str = "full",
    seed: int = 0,
):
    """Probe a model for a backdoor with several trigger families, without knowing the trigger.

    Args:
        suspect: Inspection clone.
        samples: Checked samples; all but the gate split is read.
        evidence: Scores per class and family, verdict, candidate triggers, pictures.
        mode: `full` or `screen`.
        seed: Seed of every random draw.
    """
    from modelmend import steps

    evidence.metadata.update(steps.probe_backdoor(suspect.path, samples.path, evidence.path, mode=mode, seed=seed))
