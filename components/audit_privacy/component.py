"""Component: privacy audit of the repair."""

from kfp import dsl

from components.base import component


@component
def audit_privacy(
    suspect: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Dataset],
    edited: dsl.Input[dsl.Model],
    privacy: dsl.Output[dsl.Artifact],
    members_uri: str = "",
    nonmembers_uri: str = "",
    policy_uri: str = "",
    looks: int = 1,
    seed: int = 0,
):
    """Audit what suspect and repair leak: membership inference, model inversion, defences.

    Args:
        suspect: Inspection clone.
        samples: Checked samples.
        edited: The model that is judged.
        privacy: Findings with intervals, before and after.
        members_uri: Samples the suspect was trained on; without them the repair split stands in.
        nonmembers_uri: Samples of the same kind it was not trained on.
        policy_uri: Policy that states access level and sensitivity; empty for `default`.
        looks: How often the gate split has been read for this suspect, this time included.
        seed: Seed of every random draw.
    """
    from modelmend import steps

    privacy.metadata.update(
        steps.audit_privacy(
            suspect.path,
            samples.path,
            edited.path,
            privacy.path,
            members_uri=members_uri,
            nonmembers_uri=nonmembers_uri,
            policy_uri=policy_uri,
            looks=looks,
            seed=seed,
        )
    )
