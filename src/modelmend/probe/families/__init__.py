"""Trigger families: each a way to look for an input change that leads everything to one class."""

from modelmend.probe.families.additive import AdditiveForm
from modelmend.probe.families.family import Kind, TriggerFamily
from modelmend.probe.families.patch import PatchForm
from modelmend.probe.families.warp import WarpForm

FAMILIES: dict[str, TriggerFamily] = {
    family.name: family
    for family in (
        TriggerFamily("patch", "patch", PatchForm, source="Neural Cleanse, S&P 2019"),
        TriggerFamily("additive", "additive", AdditiveForm, source="universal perturbations, arXiv 1610.08401"),
        TriggerFamily("warp", "warp", WarpForm, images=True, source="WaNet's parametrisation, arXiv 2102.10369"),
    )
}

__all__ = ["FAMILIES", "Kind", "TriggerFamily"]
