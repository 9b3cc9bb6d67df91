"""Registering a model as a team does that suspects nothing: version 1 of demos, tests and tutorials."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelmend.errors import InputError
from modelmend.registry.connect import client, experiment_id, talking_to, tracking_uri_or_default
from modelmend.registry.model_dir import build_model_dir
from modelmend.registry.versions import ensure_model

if TYPE_CHECKING:
    from torch import nn


def register_plain(
    model: nn.Module | Path,
    name: str,
    tracking_uri: str | None = None,
    *,
    input_shape: tuple[int, ...] | None = None,
    alias: str | None = None,
) -> str:
    """Register a model without any gate.

    Args:
        model: A ``.pt2`` file of modelmend, or a module, which MLflow saves in its own way (``pt2``).
        name: Registered model, made if it is not there.
        tracking_uri: MLflow server or database; ``None`` for ``MLFLOW_TRACKING_URI``.
        input_shape: Of one sample; needed for a module.
        alias: Put on the version, such as ``production``.

    Returns:
        The version.

    Raises:
        InputError: a module without ``input_shape``.
        RegistryError: MLflow cannot be reached or refuses.
    """
    uri = tracking_uri_or_default(tracking_uri)
    with talking_to(uri), tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "model"
        if isinstance(model, (str, Path)):
            _from_file(Path(model), folder)
        elif input_shape is None:
            raise InputError(
                "a module needs the shape of one sample", field="input_shape", fix="give input_shape=(C, H, W)"
            )
        else:
            _from_module(model, input_shape, folder)
        mlflow = client(uri)
        ensure_model(mlflow, name)
        run = mlflow.create_run(experiment_id(mlflow, uri), run_name=f"train {name}")
        mlflow.log_artifacts(run.info.run_id, str(folder), "model")
        source = f"{run.info.artifact_uri.rstrip('/')}/model"
        version = mlflow.create_model_version(name, source, run_id=run.info.run_id, await_creation_for=0)
        mlflow.set_terminated(run.info.run_id)
        if alias:
            mlflow.set_registered_model_alias(name, alias, version.version)
        return str(version.version)


def _from_file(file: Path, folder: Path) -> None:
    from modelmend.model.load import load

    found: Any = load(file)
    build_model_dir(
        folder, file, input_shape=tuple(found.input_shape), num_classes=found.num_classes, dtype="float32", metadata={}
    )


def _from_module(module: nn.Module, input_shape: tuple[int, ...], folder: Path) -> None:
    import mlflow
    import numpy as np
    import torch
    from mlflow.models import infer_signature
    from mlflow.types import Schema, TensorSpec

    zeros = np.zeros((2, *input_shape), dtype=np.float32)
    module = module.cpu().eval()
    with torch.no_grad():
        classes = module(torch.from_numpy(zeros)).shape[1]
    signature = infer_signature(zeros)
    signature.inputs = Schema([TensorSpec(np.dtype("float32"), (-1, *input_shape))])
    signature.outputs = Schema([TensorSpec(np.dtype("float32"), (-1, classes))])
    mlflow.pytorch.save_model(
        module,
        str(folder),
        serialization_format="pt2",
        input_example=zeros,
        signature=signature,
        pip_requirements=[f"torch=={torch.__version__.split('+')[0]}"],
    )
