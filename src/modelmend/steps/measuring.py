"""Measuring the finished repair on the gate split, which no repair stage has read."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelmend.artifacts import SCHEMAS, read_artifact
from modelmend.errors import ArtifactError
from modelmend.events import stage
from modelmend.metrics import accuracy, clopper_pearson, paired_drop
from modelmend.records import ClassAccuracy, Measured, Scorecard
from modelmend.steps.gating import local_policy
from modelmend.steps.stores import (
    open_classifier,
    open_evidence,
    open_known_trigger,
    open_samples,
    open_suspect,
    output,
)

if TYPE_CHECKING:
    from torch import Tensor

    from modelmend.model.classifier import Classifier
    from modelmend.probe.trigger import Trigger


def measure_repair(
    suspect: str,
    samples: str,
    evidence: str,
    pruned: str,
    edited: str,
    scorecard: str,
    *,
    known_trigger_uri: str = "",
    seed: int = 0,
    looks: int = 1,
) -> dict[str, Any]:
    """Measure accuracy, residual backdoor, compression and cost of the repaired model.

    Args:
        suspect: SUSPECT artifact.
        samples: SAMPLES artifact; triggers are fitted on the repair split, everything is measured on the gate split.
        evidence: EVIDENCE artifact of the suspect.
        pruned: PRUNED artifact.
        edited: EDITED artifact that is judged.
        scorecard: Where the SCORECARD artifact goes.
        known_trigger_uri: File of a trigger that you know (``probe.known``); it is measured, and nothing else reads it.
        seed: Of the fresh inversions; must differ from the probe's to be a second opinion.
        looks: How often the gate split has been read for this suspect, this time included.

    Returns:
        The main figures.
    """
    from modelmend.editing.reactivation import reactivation
    from modelmend.model.branches import split_branches, wholly_cut
    from modelmend.model.cost import count
    from modelmend.model.groups import find_groups
    from modelmend.model.remove import remove_groups
    from modelmend.probe.estimate import attack_success_left
    from modelmend.probe.residual import residual

    with stage("measure_repair") as progress, tempfile.TemporaryDirectory() as work:
        source, bank = open_suspect(suspect), open_samples(samples)
        artifact, found, triggers = open_evidence(evidence)
        cuts, final = read_artifact(pruned, SCHEMAS["pruned"]), read_artifact(edited, SCHEMAS["edited"])
        if final.inputs.get("suspect") not in (None, source.artifact.digest):
            raise ArtifactError(
                "this edit belongs to another suspect", where=edited, fix="pass the artifacts of one run"
            )
        edit_log, cut_log = final.json("edit.json"), cuts.json("pruning.json")
        repaired = open_classifier(final, source.info, expect=edit_log["content_hash"])
        known = open_known_trigger(known_trigger_uri, source, Path(work)) if known_trigger_uri else None
        kept = accuracy_kept(source.classifier, repaired, *bank["gate"])
        progress("accuracy", 1, 4)

        residuals, again = residual(
            source.classifier,
            repaired,
            bank["fit"],
            bank["gate"],
            evidence=found,
            used=found.families,
            kept=found.kept_family,
            seed=seed + 1000,
            progress=progress,
        )
        was, left = attack_success_left(residuals, found)
        woken = reactivation(
            *(source.classifier, repaired, bank["fit"], bank["gate"], triggers, found.suspects),
            seed=seed + 2000,
            progress=progress,
        )
        shape = source.info.input_shape
        groups = find_groups(source.classifier.graph, shape)
        nodes = split_branches(source.classifier.graph, groups) if cut_log.get("branches") else groups
        gone = wholly_cut(groups, [nodes[cut["index"]] for cut in cut_log["cut"]])
        small = count(remove_groups(repaired.graph, gone, shape), shape) if gone else None
        card = Scorecard(
            suspect_hash=source.info.content_hash,
            repaired_hash=edit_log["content_hash"],
            domain=bank.artifact.json("domain.json")["outcome"],
            **kept,
            probe_before=found,
            probe_after=again,
            residuals=tuple(residuals),
            attack_before=was,
            attack_after=left,
            reactivation=woken,
            known_trigger_before=known and success(source.classifier, known, *bank["gate"]),
            known_trigger_after=known and success(repaired, known, *bank["gate"]),
            groups_cut=len(cut_log["cut"]),
            groups_total=len(nodes),
            parameters_before=source.info.parameters,
            parameters_after=small.parameters if small else source.info.parameters,
            macs_before=source.info.macs,
            macs_after=small.macs if small else source.info.macs,
            edited_relative_norm=edit_log.get("relative_norm"),
            batch_norm=edit_log.get("batch_norm", "frozen"),
            explainability=explainability(cut_log),
            seconds={item.producer: item.seconds for item in (artifact, cuts, final)},
            passes={item.producer: item.passes for item in (artifact, cuts, final)},
            looks=looks,
        )
        inputs = {
            "suspect": source.artifact,
            "samples": bank.artifact,
            "evidence": artifact,
            "pruned": cuts,
            "edited": final,
        }
        params: dict[str, Any] = {"looks": looks}
        if known is not None:
            params["known_trigger"] = digest(known)
        with output(progress, scorecard, "scorecard", inputs=inputs, params=params, seed=seed) as folder:
            card.write(folder / "scorecard.json")
        progress("done", 4, 4)
        return {"accuracy_after": card.accuracy_after.value or 0.0, "accuracy_drop": card.accuracy_drop.value}


def success(classifier: Classifier, trigger: Trigger, x: Tensor, y: Tensor) -> Measured:
    """How often a trigger leads samples of other classes to its class, with its interval.

    Args:
        classifier: The model.
        trigger: With a target.
        x: Clean samples ``(N, ...)``.
        y: Their labels ``(N,)``.
    """
    from modelmend.probe import score

    assert trigger.target is not None
    hits, n = score.success(classifier, trigger, x, y, trigger.target)
    low, high = clopper_pearson(hits, n)
    method = f"the trigger that was handed in, class {trigger.target}"
    return Measured(value=hits / n if n else None, low=low, high=high, n=n, counts=(hits,), method=method)


def digest(trigger: Trigger) -> str:
    """Hash of a trigger's tensors and target."""
    from modelmend.artifacts import sha256_json

    moving = {k: v.tolist() for k, v in sorted(trigger.state().items()) if k not in ("low", "high")}
    return sha256_json({"target": trigger.target, **moving})


def audit_privacy(
    suspect: str,
    samples: str,
    edited: str,
    privacy: str,
    *,
    members_uri: str = "",
    nonmembers_uri: str = "",
    policy_uri: str = "",
    looks: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Audit what the suspect and its repair leak about the samples behind them.

    Args:
        suspect: SUSPECT artifact.
        samples: SAMPLES artifact.
        edited: EDITED artifact that is judged.
        privacy: Where the PRIVACY artifact goes.
        members_uri: Samples that the suspect was trained on; without them the repair split stands in.
        nonmembers_uri: Samples of the same kind that it was not trained on.
        policy_uri: Policy whose privacy section states access level and sensitivity.
        looks: How often the gate split has been read for this suspect, this time included.
        seed: Of every random draw.

    Returns:
        How many findings of each outcome.
    """
    from modelmend.gate.policy import load_policy
    from modelmend.privacy.audit import audit
    from modelmend.samples.data import Samples
    from modelmend.samples.read import read_samples

    with stage("audit_privacy") as progress, tempfile.TemporaryDirectory() as work:
        source, bank = open_suspect(suspect), open_samples(samples)
        final = read_artifact(edited, SCHEMAS["edited"])
        repaired = open_classifier(final, source.info, expect=final.json("edit.json")["content_hash"])
        policy = load_policy(local_policy(policy_uri, Path(work)))

        def given(uri: str) -> Samples | None:
            if not uri:
                return None
            told = source.info.preprocessing
            shape = source.info.input_shape
            return read_samples(
                uri, kind=told.kind, input_shape=shape, input_range=told.input_range, workdir=Path(work)
            )

        members, nonmembers = given(members_uri), given(nonmembers_uri)
        report = audit(
            source.classifier,
            repaired,
            members,
            nonmembers,
            bank.subset("fit", "reward"),
            bank.subset("gate"),
            config=privacy_config(policy, random_split=not bank.counts["measured_apart"]),
            seed=seed,
            progress=progress,
        )
        inputs = {"suspect": source.artifact, "samples": bank.artifact, "edited": final}
        params = {
            "looks": looks,
            "members": "" if members is None else members.hash(),
            "nonmembers": "" if nonmembers is None else nonmembers.hash(),
        }
        with output(progress, privacy, "privacy", inputs=inputs, params=params, seed=seed) as folder:
            report.write(folder / "privacy.json")
        outcomes = [finding.outcome for finding in report.findings]
        return {outcome: outcomes.count(outcome) for outcome in sorted(set(outcomes))}


def privacy_config(policy: Any, *, random_split: bool) -> Any:
    """The audit's settings: what the owner states in the policy, and whether chance alone drew the gate split."""
    from modelmend.privacy.audit import PrivacyConfig

    stated = policy.privacy
    return PrivacyConfig(
        access=stated.access,
        person_classes=stated.person_classes,
        random_split=random_split,
        sensitivity=stated.sensitivity,
        min_side=stated.min_samples,
        profile="strict" if stated.absolute == "enforce" else "default",
    )


def accuracy_kept(before: Classifier, after: Classifier, x: Tensor, y: Tensor) -> dict[str, Any]:
    """What a scorecard says about clean accuracy, measured on the same samples with both models.

    Args:
        before: The suspect.
        after: The repaired model.
        x: Clean samples ``(N, ...)`` in 0..1 that no repair stage has read.
        y: Their labels ``(N,)``.

    Returns:
        ``gate_samples``, ``accuracy_before``, ``accuracy_after``, ``accuracy_drop``, ``class_accuracy``.
    """
    was, now = before.predict(x), after.predict(x)
    right, still = (was == y).tolist(), (now == y).tolist()
    drop, upper = paired_drop(right, still)
    lost = sum(b and not a for b, a in zip(right, still, strict=True))
    won = sum(a and not b for b, a in zip(right, still, strict=True))
    return {
        "gate_samples": len(y),
        "accuracy_before": _rate(right),
        "accuracy_after": _rate(still),
        "accuracy_drop": Measured(
            value=drop, high=upper, n=len(y), counts=(lost, won), method="paired, one-sided score bound (Tango)"
        ),
        "class_accuracy": tuple(
            ClassAccuracy(
                label=k,
                n=int((y == k).sum()),
                before=accuracy(was[y == k], y[y == k]),
                after=accuracy(now[y == k], y[y == k]),
            )
            for k in range(before.num_classes)
        ),
    }


def explainability(pruning: Mapping[str, Any]) -> Measured | None:
    """Score of ``pruning.json``'s explanation with its interval; ``None`` where nothing was cut."""
    told = pruning.get("explanation") or {}
    if told.get("score") is None:
        return None
    method = "harmonic mean of the explanations' characterization and the share of the fall that the listed cuts give"
    return Measured(value=told["score"], low=told["low"], high=told["high"], level=0.95, method=method)


def _rate(hits: list[bool]) -> Measured:
    low, high = clopper_pearson(sum(hits), len(hits))
    return Measured(
        value=sum(hits) / len(hits) if hits else None, low=low, high=high, n=len(hits), method="Clopper-Pearson"
    )
