"""What a user asks for: one record that the Python call, the in-process runner and the pipeline share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from modelmend.artifacts import sha256_file, sha256_json
from modelmend.errors import InputError
from modelmend.records import Record


class RepairRequest(Record):
    """Everything that shapes a repair run; also the parameters of the compiled pipeline.

    Empty strings and tuples mean *not told*. See ``modelmend repair --help`` for each field.
    """

    model_uri: str
    samples_uri: str
    name: str = ""
    policy_uri: str = ""
    tracking_uri: str = ""
    arch: str = ""
    input_shape: tuple[int, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    input_range: tuple[float, ...] = ()
    kind: str = "image"
    members_uri: str = ""
    nonmembers_uri: str = ""
    measure_samples_uri: str = ""
    known_trigger_uri: str = ""
    probe_mode: str = "full"
    pruning_policy: str = ""
    """Folder of a policy of one's own (``modelmend policy train``); in-process only, the pipeline has none."""
    seed: int = 0

    @property
    def configuration(self) -> str:
        """Hash of what shapes the result beside the inputs that have hashes of their own."""
        shaping = self.model_dump(
            mode="json",
            include={"arch", "input_shape", "mean", "std", "input_range", "kind", "probe_mode"},
        )
        audited = {"members": bool(self.members_uri), "nonmembers": bool(self.nonmembers_uri)}
        own: dict[str, Any] = {"known_trigger": True} if self.known_trigger_uri else {}
        if self.pruning_policy:
            own["pruning_policy"] = _weights_hash(Path(self.pruning_policy))
        return sha256_json({**shaping, **audited, **own})

    def arguments(self) -> dict[str, Any]:
        """Arguments of the compiled pipeline (lists of floats, because KFP knows no other numbers in lists)."""
        values = self.model_dump(mode="json", exclude={"pruning_policy"})
        for key in ("input_shape", "mean", "std", "input_range"):
            values[key] = [float(v) for v in values[key]]
        return {**values, "configuration": self.configuration}


def _weights_hash(folder: Path) -> str:
    from modelmend.pruning.pretrain import WEIGHTS

    try:
        return sha256_file(folder / WEIGHTS)
    except OSError as error:
        raise InputError(
            f"cannot read the pruning policy: {error.strerror}",
            where=folder / WEIGHTS,
            field="pruning_policy",
            fix="put the folder back that the run was made with",
        ) from error


def check_request(request: RepairRequest) -> None:
    """Refuse what cannot work before anything is started.

    Raises:
        InputError: a local path that does not exist, an unknown mode, or a name and no server to register at.
        PolicyError: the policy, if it lies here, cannot be used.
    """
    from modelmend.gate.policy import load_policy

    for field in (
        "model_uri",
        "samples_uri",
        "members_uri",
        "nonmembers_uri",
        "measure_samples_uri",
        "known_trigger_uri",
    ):
        value = getattr(request, field)
        if value and "://" not in value and not value.startswith(("models:/", "runs:/")) and not Path(value).exists():
            raise InputError(
                "no such file or directory", where=value, field=field.removesuffix("_uri"), fix="check the path"
            )
    if request.known_trigger_uri.startswith(("models:/", "runs:/")):
        raise InputError(
            "a known trigger is no MLflow artifact here",
            where=request.known_trigger_uri,
            field="known_trigger",
            fix="give a path or an s3:// URI",
        )
    if request.probe_mode not in ("full", "screen"):
        raise InputError(f"unknown probe mode {request.probe_mode!r}", field="probe_mode", fix="use full or screen")
    if request.kind not in ("image", "raw"):
        raise InputError(f"unknown kind {request.kind!r}", field="kind", fix="use image or raw")
    if bool(request.members_uri) != bool(request.nonmembers_uri):
        raise InputError(
            "members and non-members go together",
            field="members/nonmembers",
            fix="give both --members and --nonmembers",
        )
    if request.name and not (request.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")):
        raise InputError(
            "a name to register under, and no MLflow server",
            field="tracking_uri",
            fix="give --tracking-uri (such as sqlite:///mlflow.db), set MLFLOW_TRACKING_URI, or leave the name out",
        )
    if request.pruning_policy:
        from modelmend.pruning.pretrain import load_policy as load_pruning_policy

        load_pruning_policy(Path(request.pruning_policy))
    if "://" not in request.policy_uri:
        load_policy(request.policy_uri or None)
