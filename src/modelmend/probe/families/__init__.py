"""Trigger families: each a way to look for an input change that leads everything to one class."""

from modelmend.probe.families.additive import AdditiveForm
from modelmend.probe.families.family import Kind, Opened, TriggerFamily
from modelmend.probe.families.feature import decoupled
from modelmend.probe.families.generator import generator_or_additive
from modelmend.probe.families.patch import PatchForm
from modelmend.probe.families.spectral import SpectralForm
from modelmend.probe.families.unlearning import unlearned
from modelmend.probe.families.warp import WarpForm
from modelmend.probe.families.wave import WaveForm, try_waves

FAMILIES: dict[str, TriggerFamily] = {
    family.name: family
    for family in (
        TriggerFamily("patch", "patch", PatchForm, noise=0.2, source="Neural Cleanse, S&P 2019"),
        TriggerFamily(
            "additive", "additive", AdditiveForm, noise=0.2, source="universal perturbations, arXiv 1610.08401"
        ),
        TriggerFamily("warp", "warp", WarpForm, images=True, noise=0.3, source="WaNet, arXiv 2102.10369"),
        TriggerFamily("spectral", "spectral", SpectralForm, images=True, noise=0.25, source="SIG, arXiv 1902.11237"),
        TriggerFamily(
            *("wave", "spectral", WaveForm), begin=try_waves, images=True, noise=0.3, source="SIG, arXiv 1902.11237"
        ),
        TriggerFamily(
            *("feature", "feature", generator_or_additive),
            view=decoupled,
            noise=0.25,
            source="BTI-DBF, arXiv 2401.15002",
        ),
        TriggerFamily(
            *("unlearning", "unlearning", AdditiveForm),
            view=unlearned,
            noise=0.25,
            source="RNP, arXiv 2305.14876",
        ),
    )
}

__all__ = ["FAMILIES", "Kind", "Opened", "TriggerFamily"]
