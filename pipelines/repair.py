"""The repair pipeline: a suspect model goes in, a judged version comes out."""

from components.audit_privacy import audit_privacy
from components.edit_weights import edit_weights
from components.extract_activations import extract_activations
from components.fine_tune import fine_tune
from components.gate_repair import gate_repair
from components.import_model import import_model
from components.measure_repair import measure_repair
from components.probe_backdoor import probe_backdoor
from components.prune_neurons import prune_neurons
from components.register_model import register_model
from components.report_failure import report_failure
from components.validate_samples import validate_samples
from components.write_report import write_report
from kfp import dsl
from kfp.dsl.pipeline_channel import PipelineChannel as Channel


def fresh(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Never take a cached result: the cache key ignores the content behind a URI."""
    return task.set_caching_options(enable_caching=False)


@dsl.pipeline(name="modelmend-repair", display_name="modelmend repair")
def repair(
    model_uri: str,
    samples_uri: str,
    name: str = "",
    policy_uri: str = "",
    tracking_uri: str = "",
    arch: str = "",
    input_shape: list = [],  # noqa: B006
    mean: list = [],  # noqa: B006
    std: list = [],  # noqa: B006
    input_range: list = [],  # noqa: B006
    kind: str = "image",
    members_uri: str = "",
    nonmembers_uri: str = "",
    measure_samples_uri: str = "",
    known_trigger_uri: str = "",
    probe_mode: str = "full",
    configuration: str = "",
    seed: int = 0,
):
    """Repair a suspect classifier and register it only if every gate passes.

    Args:
        model_uri: The suspect: path, `s3://`, `models:/name/version` or `runs:/id/path`.
        samples_uri: Clean samples: parquet, image folder or npz, local or `s3://`.
        name: Registered model in MLflow; empty registers nothing.
        policy_uri: Policy file or packaged name; empty for `default`.
        tracking_uri: MLflow server or database.
        arch: Architecture of a state dict.
        input_shape: Shape of one sample.
        mean: Mean per channel of the model's normalisation.
        std: Standard deviation per channel.
        input_range: Range that 0..1 samples are scaled to before normalising.
        kind: `image` or `raw`.
        members_uri: Samples the suspect was trained on, for the privacy audit.
        nonmembers_uri: Samples of the same kind it was not trained on.
        measure_samples_uri: More clean samples that only the final measurement reads.
        known_trigger_uri: File of a trigger that you know; only the final measurement reads it.
        probe_mode: `full` or `screen`.
        configuration: Free text that becomes part of the registration key.
        seed: Seed of every random draw.
    """
    with dsl.ExitHandler(report_failure(), name="repair"):
        taken = fresh(
            import_model(
                model_uri=model_uri,
                arch=arch,
                input_shape=input_shape,
                mean=mean,
                std=std,
                input_range=input_range,
                kind=kind,
                tracking_uri=tracking_uri,
            )
        )
        suspect = taken.outputs["suspect"]
        checked = fresh(
            validate_samples(
                suspect=suspect,
                samples_uri=samples_uri,
                measure_samples_uri=measure_samples_uri,
                known_trigger_uri=known_trigger_uri,
                seed=seed,
            )
        )
        samples = checked.outputs["samples"]
        probed = probe_backdoor(suspect=suspect, samples=samples, mode=probe_mode, seed=seed)
        evidence = probed.outputs["evidence"]
        streamed = extract_activations(suspect=suspect, samples=samples, evidence=evidence)
        cut = prune_neurons(
            suspect=suspect,
            samples=samples,
            evidence=evidence,
            activations=streamed.outputs["activations"],
            seed=seed,
        )
        changed = edit_weights(
            suspect=suspect, samples=samples, evidence=evidence, pruned=cut.outputs["pruned"], seed=seed
        )

        def judge(edited: Channel, looks: int) -> tuple[dsl.PipelineTask, ...]:
            measured = fresh(
                measure_repair(
                    suspect=suspect,
                    samples=samples,
                    evidence=evidence,
                    pruned=cut.outputs["pruned"],
                    edited=edited,
                    known_trigger_uri=known_trigger_uri,
                    looks=looks,
                    seed=seed,
                )
            )
            audited = fresh(
                audit_privacy(
                    suspect=suspect,
                    samples=samples,
                    edited=edited,
                    members_uri=members_uri,
                    nonmembers_uri=nonmembers_uri,
                    policy_uri=policy_uri,
                    looks=looks,
                    seed=seed,
                )
            )
            gated = fresh(
                gate_repair(
                    samples=samples,
                    scorecard=measured.outputs["scorecard"],
                    privacy=audited.outputs["privacy"],
                    policy_uri=policy_uri,
                    seed=seed,
                )
            )
            return measured, audited, gated

        def promote(edited: Channel, judged: tuple[dsl.PipelineTask, ...]) -> None:
            """Registration re-checks the decision itself and writes down a refusal, so it runs on every verdict."""
            measured, audited, gated = judged
            registered = fresh(
                register_model(
                    suspect=suspect,
                    samples=samples,
                    edited=edited,
                    scorecard=measured.outputs["scorecard"],
                    privacy=audited.outputs["privacy"],
                    decision=gated.outputs["decision"],
                    name=name,
                    policy_uri=policy_uri,
                    tracking_uri=tracking_uri,
                    configuration=configuration,
                    seed=seed,
                )
            )
            fresh(
                write_report(
                    suspect=suspect,
                    samples=samples,
                    evidence=evidence,
                    activations=streamed.outputs["activations"],
                    pruned=cut.outputs["pruned"],
                    edited=edited,
                    scorecard=measured.outputs["scorecard"],
                    privacy=audited.outputs["privacy"],
                    decision=gated.outputs["decision"],
                    registration=registered.outputs["registration"],
                    tracking_uri=tracking_uri,
                )
            )

        first = judge(changed.outputs["edited"], looks=1)
        verdict = first[2].outputs["Output"]
        with dsl.If(verdict == "fallback", name="fallback"):
            tuned = fine_tune(
                suspect=suspect, samples=samples, evidence=evidence, edited=changed.outputs["edited"], seed=seed
            )
            promote(tuned.outputs["tuned"], judge(tuned.outputs["tuned"], looks=2))
        with dsl.Else(name="final"):
            promote(changed.outputs["edited"], first)
