"""Component: register the repaired model in MLflow, only on a decision that still says pass."""

from kfp import dsl

from components.base import component


@component
def register_model(
    suspect: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Dataset],
    edited: dsl.Input[dsl.Model],
    scorecard: dsl.Input[dsl.Artifact],
    privacy: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    registration: dsl.Output[dsl.Artifact],
    name: str = "",
    policy_uri: str = "",
    tracking_uri: str = "",
    configuration: str = "",
    seed: int = 0,
) -> str:
    """Register the repaired model in MLflow if the decision, recomputed, says pass; never twice.

    Args:
        suspect: Inspection clone.
        samples: Checked samples.
        edited: The model that was judged.
        scorecard: Measured figures, logged as evidence.
        privacy: Privacy findings, logged as evidence.
        decision: The verdict; its hashes must fit the other inputs.
        registration: What happened at the registry.
        name: Registered model; empty registers nothing.
        policy_uri: The policy that was asked for.
        tracking_uri: MLflow server or database.
        configuration: Anything else that shaped the run; part of the registration key.
        seed: Part of the registration key.

    Returns:
        `registered`, `existing`, `refused` or `unnamed`.
    """
    from modelmend import steps

    return steps.register_model(
        suspect.path,
        samples.path,
        edited.path,
        scorecard.path,
        privacy.path,
        decision.path,
        registration.path,
        name=name,
        policy_uri=policy_uri,
        tracking_uri=tracking_uri,
        configuration=configuration,
        seed=seed,
    )
