"""Component: measure the finished repair."""

from kfp import dsl

from components.base import component


@component
def measure_repair(
    suspect: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Dataset],
    evidence: dsl.Input[dsl.Artifact],
    pruned: dsl.Input[dsl.Model],
    edited: dsl.Input[dsl.Model],
    scorecard: dsl.Output[dsl.Artifact],
    known_trigger_uri: str = "",
    looks: int = 1,
    seed: int = 0,
):
    """Measure accuracy, residual backdoor, compression and cost on the gate split.

    Args:
        suspect: Inspection clone.
        samples: Checked samples; everything is measured on the gate split.
        evidence: Probe evidence of the suspect.
        pruned: Pruned clone, for the list of cuts.
        edited: The model that is judged.
        scorecard: Every figure, with its interval where it has one.
        known_trigger_uri: File of a trigger that you know: tensors `target` and `mask` with `pattern`, `delta` or `flow`.
        looks: How often the gate split has been read for this suspect, this time included.
        seed: Seed of the fresh inversions.
    """
    from modelmend import steps

    scorecard.metadata.update(
        steps.measure_repair(
            suspect.path,
            samples.path,
            evidence.path,
            pruned.path,
            edited.path,
            scorecard.path,
            known_trigger_uri=known_trigger_uri,
            looks=looks,
            seed=seed,
        )
    )
