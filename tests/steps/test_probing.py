"""Which samples the probe may read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import modelmend.probe.pictures
import modelmend.probe.run
from modelmend import steps
from modelmend.steps.stores import open_samples
from tests.evidence import evidence as found
from tests.steps.test_gating import make_bench


def test_the_probe_fits_on_the_repair_splits_counts_on_select_and_never_sees_the_gate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, seen = make_bench(tmp_path), {}

    def probe(classifier, fit, holdout, *, more, **settings):  # type: ignore[no-untyped-def]
        seen.update(fit=fit, reward=holdout, select=more, settings=settings)
        return SimpleNamespace(evidence=found(backdoor=True, success=0.9), triggers=[])

    monkeypatch.setattr(modelmend.probe.run, "probe", probe)
    monkeypatch.setattr(modelmend.probe.pictures, "write_pictures", lambda *_: None)
    steps.probe_backdoor(bench["suspect"], bench["samples"], bench["evidence"], seed=5)
    bank = open_samples(bench["samples"])
    for name in ("fit", "reward", "select"):
        assert torch.equal(seen[name][0], bank[name][0])
    assert not [key for key, value in seen["settings"].items() if isinstance(value, (tuple, torch.Tensor))]
