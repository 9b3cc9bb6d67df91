"""Component: judge the evidence against a policy."""

from kfp import dsl

from components.base import component


@component
def gate_repair(
    samples: dsl.Input[dsl.Dataset],
    scorecard: dsl.Input[dsl.Artifact],
    privacy: dsl.Input[dsl.Artifact],
    decision: dsl.Output[dsl.Artifact],
    policy_uri: str = "",
    seed: int = 0,
) -> str:
    """Judge a repair; anything missing, NaN or failed means that it does not pass.

    Args:
        samples: Checked samples.
        scorecard: Measured figures.
        privacy: Privacy findings about the same model.
        decision: Verdict with every check, its number and bound.
        policy_uri: Policy file or packaged name; empty for `default`.
        seed: Recorded in the decision.

    Returns:
        `pass`, `refuse` or `fallback`.
    """
    from modelmend import steps

    return steps.gate_repair(
        samples.path, scorecard.path, privacy.path, decision.path, policy_uri=policy_uri, seed=seed
    )
