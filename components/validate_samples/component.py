"""Component: check and split the clean samples."""

from kfp import dsl

from components.base import component


@component
def validate_samples(
    suspect: dsl.Input[dsl.Model],
    samples_uri: str,
    samples: dsl.Output[dsl.Dataset],
    measure_samples_uri: str = "",
    known_trigger_uri: str = "",
    seed: int = 0,
):
    """Check the clean samples with Great Expectations, measure the domain match, split them.

    Args:
        suspect: Inspection clone.
        samples_uri: Clean samples: parquet, image folder or npz, local or `s3://`.
        samples: Checked samples with their splits: repair (fit, reward), select, gate.
        measure_samples_uri: More clean samples that only the final measurement reads.
        known_trigger_uri: Only checked here, so that a file of no use stops the run early.
        seed: Seed of the split.
    """
    from modelmend import steps

    samples.metadata.update(
        steps.validate_samples(
            suspect.path,
            samples_uri,
            samples.path,
            measure_samples_uri=measure_samples_uri,
            known_trigger_uri=known_trigger_uri,
            seed=seed,
        )
    )
