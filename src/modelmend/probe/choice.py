"""Which families are used in the repair, and which one is kept back from it for the verdict."""

from __future__ import annotations

from collections.abc import Sequence

from modelmend.errors import InputError
from modelmend.model.classifier import Classifier
from modelmend.probe.families import FAMILIES, TriggerFamily

USED = ("patch", "additive", "warp", "spectral", "wave", "feature")
KEPT = "unlearning"


def choose(
    classifier: Classifier, images: bool, families: Sequence[str] | None = None, keep: str | None = None
) -> tuple[list[TriggerFamily], TriggerFamily]:
    """Used families and the kept one, with substitutes where a family does not fit the model.

    Args:
        classifier: The suspect.
        images: Samples are images ``(N, C, H, W)``.
        families: Names of those to use; default ``USED``.
        keep: Name of the one kept back; default ``KEPT``, or the first of another kind than all used ones.

    Raises:
        InputError: unknown name, none left, or the kept family is of the kind of a used one.
    """
    wanted = [_fitting(_known(name), classifier, images) for name in (USED if families is None else families)]
    used = list(dict.fromkeys(family for family in wanted if family is not None))
    if not used:
        raise InputError("no trigger family is left to use", field="families", fix=f"choose of {', '.join(FAMILIES)}")
    kinds = {family.kind for family in used}
    names = [KEPT, *FAMILIES] if keep is None else [keep]
    candidates = [_fitting(_known(name), classifier, images) for name in names]
    kept = next((family for family in candidates if family is not None and family.kind not in kinds), None)
    if kept is None:
        raise InputError(
            "no trigger family of another kind is left for the verdict",
            field="keep",
            fix=f"keep one whose kind is none of {', '.join(sorted(kinds))}, or use fewer families",
        )
    return used, kept


def has_batch_norm(classifier: Classifier) -> bool:
    """Whether the graph holds a batch norm."""
    return any(str(node.target).split(".")[1:2] == ["batch_norm"] for node in classifier.graph.graph.nodes)


def fitting(name: str, classifier: Classifier, images: bool) -> TriggerFamily:
    """The family of this name, or its substitute; raises ``InputError`` when neither fits the model."""
    family = _fitting(_known(name), classifier, images)
    if family is None:
        raise InputError(f"the trigger family {name!r} does not fit this model", field="families")
    return family


def _known(name: str) -> TriggerFamily:
    if name not in FAMILIES:
        raise InputError(f"unknown trigger family {name!r}", field="families", fix=f"one of {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _fitting(family: TriggerFamily, classifier: Classifier, images: bool) -> TriggerFamily | None:
    if family.images and not images:
        return None
    if family.needs_batch_norm and not has_batch_norm(classifier):
        return None if family.substitute is None else _fitting(_known(family.substitute), classifier, images)
    return family
