"""Component: make an inspection clone of a suspect model."""

from kfp import dsl

from components.base import component


@component
def import_model(
    model_uri: str,
    suspect: dsl.Output[dsl.Model],
    arch: str = "",
    input_shape: list = [],  # noqa: B006 - a KFP default
    mean: list = [],  # noqa: B006
    std: list = [],  # noqa: B006
    input_range: list = [],  # noqa: B006
    kind: str = "image",
    tracking_uri: str = "",
):
    """Make an inspection clone of a suspect model without running code that it carries.

    Args:
        model_uri: The suspect: path, `s3://bucket/key`, `models:/name/version` or `runs:/id/path`.
        suspect: The clone: aten graph and weights as data, with hashes and scan findings.
        arch: Architecture of a state dict: a built-in name or `package.module:callable` that you trust.
        input_shape: Shape of one sample, such as `[3, 32, 32]`; read off the model where it says so.
        mean: Mean per channel of the model's normalisation; empty for 0.
        std: Standard deviation per channel; empty for 1.
        input_range: Range that 0..1 samples are scaled to before normalising; empty for `[0, 1]`.
        kind: `image` or `raw`.
        tracking_uri: MLflow server for `models:/` and `runs:/` URIs.
    """
    from modelmend import steps

    suspect.metadata.update(
        steps.import_model(
            model_uri,
            suspect.path,
            arch=arch,
            input_shape=input_shape,
            mean=mean,
            std=std,
            input_range=input_range,
            kind=kind,
            tracking_uri=tracking_uri,
        )
    )
