"""Backdoor attacks by name: each draws its target class and trigger from a seed and poisons a training set."""

from modelmend.redteam.attacks import (
    adaptive,
    blended,
    low_frequency,
    patch,
    quantization,
    sample_specific,
    sinusoid,
    warp,
)
from modelmend.redteam.attacks.base import Attack, Kind

ATTACKS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        patch.BADNETS,
        blended.BLENDED,
        sinusoid.SIG,
        warp.WANET,
        low_frequency.LF,
        quantization.BPP,
        sample_specific.SAMPLE_SPECIFIC,
        patch.ALL_TO_ALL,
        adaptive.ADAPTIVE_BLEND,
    )
}
"""``ATTACKS[name](seed, input_shape, num_classes) -> Attack``."""

CORE = ("badnets", "blended", "sig", "wanet", "lf", "bpp")
HARD = ("sample_specific", "all_to_all", "adaptive_blend")

__all__ = ["ATTACKS", "CORE", "HARD", "Attack", "Kind"]
