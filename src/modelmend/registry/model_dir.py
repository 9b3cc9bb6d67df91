"""The MLflow model directory around a ``.pt2`` file: built here, so that what was judged is stored byte for byte."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from modelmend.artifacts import sha256_file
from modelmend.errors import RegistryError

MODEL_FILE = "data/model.pt2"
STATEMENT_FILE = "modelmend/statement.json"
SIGNATURE_FILE = "modelmend/model.sig"
UNSIGNED = (SIGNATURE_FILE, "registered_model_meta")
"""Not covered by a signature: itself, and a note that MLflow adds to every download."""


def build_model_dir(
    folder: Path, pt2: Path, *, input_shape: tuple[int, ...], num_classes: int, dtype: str, metadata: dict[str, Any]
) -> None:
    """Write an MLflow model with the ``pytorch`` and ``python_function`` flavors.

    The layout is that of ``mlflow.pytorch.save_model(serialization_format="pt2")`` (MLflow 3.17); that function
    itself would trace the model anew and so store another file than the one that was judged.

    Args:
        folder: New directory.
        pt2: The model file; copied as it is.
        input_shape: Of one sample, without the batch axis.
        num_classes: Width of the output.
        dtype: Of the input, a numpy name such as ``float32``.
        metadata: JSON values for ``MLmodel``.
    """
    import mlflow
    import numpy as np
    import torch
    from mlflow import pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    (folder / "data").mkdir(parents=True)
    shutil.copyfile(pt2, folder / MODEL_FILE)
    signature = ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(dtype), (-1, *input_shape))]),
        outputs=Schema([TensorSpec(np.dtype(dtype), (-1, num_classes))]),
    )
    model = Model(signature=signature, metadata=metadata)
    model.add_flavor("pytorch", model_data="data", pytorch_version=str(torch.__version__), code=None)
    pyfunc.add_to_model(
        model, loader_module="mlflow.pytorch", data="data", python_env="python_env.yaml", model_config={"device": None}
    )
    model.model_size_bytes = (folder / MODEL_FILE).stat().st_size
    model.save(str(folder / "MLmodel"))
    torch_version = torch.__version__.split("+")[0]
    requirements = [f"mlflow=={mlflow.__version__}", f"torch=={torch_version}", f"numpy=={np.__version__}"]
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    mlflow.utils.environment._PythonEnv.current().to_yaml(str(folder / "python_env.yaml"))


def listing(folder: Path) -> dict[str, str]:
    """Relative name -> SHA-256 of every file of a model directory, without MLflow's own note."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: sha256_file(path) for name, path in names.items() if name != "registered_model_meta"}


def content_hash_of(pt2: Path) -> str:
    """Content hash of a model file, read as data only; raises ``RegistryError`` when there is none."""
    from modelmend.model.hashing import content_hash
    from modelmend.model.pt2 import read_pt2

    if not pt2.is_file():
        raise RegistryError("there is no model file", where=pt2, fix="give the repaired model.pt2")
    return content_hash(read_pt2(pt2))
