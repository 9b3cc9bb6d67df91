"""Component: one HTML report for manager and auditor."""

from kfp import dsl

from components.base import component


@component
def write_report(
    suspect: dsl.Input[dsl.Model],
    samples: dsl.Input[dsl.Dataset],
    evidence: dsl.Input[dsl.Artifact],
    activations: dsl.Input[dsl.Artifact],
    pruned: dsl.Input[dsl.Model],
    edited: dsl.Input[dsl.Model],
    scorecard: dsl.Input[dsl.Artifact],
    privacy: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    registration: dsl.Input[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    tracking_uri: str = "",
):
    """Write the report of a finished run, passed or refused.

    Args:
        suspect: Inspection clone.
        samples: Checked samples.
        evidence: Probe evidence.
        activations: Activation statistics.
        pruned: Pruned clone with its search log.
        edited: The model that was judged.
        scorecard: Measured figures.
        privacy: Privacy findings.
        decision: The verdict.
        registration: What happened at the registry.
        report: The HTML page.
        tracking_uri: MLflow server or database of the registered version, which gets a copy.
    """
    from modelmend import steps

    artifacts = {
        "suspect": suspect.path,
        "samples": samples.path,
        "evidence": evidence.path,
        "activations": activations.path,
        "pruned": pruned.path,
        "edited": edited.path,
        "scorecard": scorecard.path,
        "privacy": privacy.path,
        "decision": decision.path,
        "registration": registration.path,
    }
    steps.write_report(report.path, artifacts, tracking_uri=tracking_uri)
