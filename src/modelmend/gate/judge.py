"""From evidence to a verdict. Fails closed: whatever is missing, not finite, inconclusive or broken refuses."""

from __future__ import annotations

from collections.abc import Iterator

from modelmend import __version__
from modelmend.errors import GateError
from modelmend.gate.checks import CHECKS, Case, GateCheck
from modelmend.gate.checks.base import line
from modelmend.gate.composite import composite_index, formula
from modelmend.gate.schema import Policy
from modelmend.records import Check, Decision, PrivacyReport, Scorecard, Verdict


def judge(
    policy: Policy,
    scorecard: Scorecard | None,
    privacy: PrivacyReport | None,
    *,
    samples_hash: str,
    seed: int,
    looks: int = 1,
) -> Decision:
    """Hold a measured repair against a policy.

    Args:
        policy: The bounds.
        scorecard: What was measured on the gate split.
        privacy: What the audit found, or ``None`` when it did not run.
        samples_hash: Hash of the validated samples.
        seed: Seed of the run, recorded.
        looks: 1 at the first look at this gate split, 2 after a fallback on the same split; one-sided bounds are
            Bonferroni-adjusted over all looks that the policy plans or that happened.

    Returns:
        The decision: ``pass``; ``fallback`` if all that blocks may be mended by fine-tuning, the policy wants it and
        this is the first look; otherwise ``refuse``.

    Raises:
        GateError: There is no scorecard, so there is no model to speak about.
    """
    if scorecard is None:
        raise GateError("there is no scorecard to judge", fix="run measure_repair on the repaired model first")
    case = Case(policy, scorecard, privacy, samples_hash, max(looks, scorecard.looks))
    lines: list[Check] = []
    mendable: dict[str, bool] = {}
    for check in CHECKS.values():
        for found in _run(check, case):
            lines.append(_allow(found, policy))
            mendable[found.name] = check.mendable and found.outcome == "fail" and mendable.get(found.name, True)
    blocking = [found for found in lines if found.blocks]
    verdict: Verdict = "refuse"
    if not blocking and lines:
        verdict = "pass"
    elif policy.fallback == "fine_tune" and case.looks == 1 and all(mendable[found.name] for found in blocking):
        verdict = "fallback"
    return Decision(
        verdict=verdict,
        reasons=tuple(f"{found.name}: {found.reason}" for found in blocking) or (_passed(lines),),
        checks=tuple(lines),
        not_run=tuple(found.name for found in lines if found.outcome == "not_run"),
        composite=composite_index(policy, scorecard, privacy),
        composite_formula=formula(policy),
        suspect_hash=scorecard.suspect_hash,
        repaired_hash=scorecard.repaired_hash,
        samples_hash=samples_hash,
        policy_hash=policy.hash(),
        policy_name=policy.name,
        code_version=__version__,
        seed=seed,
        looks=case.looks,
    )


def _run(check: GateCheck, case: Case) -> Iterator[Check]:
    """Lines of one check; an error or silence becomes a line that blocks."""
    try:
        lines = list(check.measure(case))
    except Exception as error:  # a broken check must refuse, not crash past the verdict
        yield line(check.name, check.title, "inconclusive", f"the check itself failed: {error!r}")
        return
    yield from lines or [line(check.name, check.title, "not_run", "nothing was measured")]


def _allow(found: Check, policy: Policy) -> Check:
    """Lift the block of a ``not_run`` line that the policy names exactly; all else that is not good blocks."""
    allowed = found.outcome == "not_run" and found.name in policy.allowed_not_run
    return found.model_copy(update={"blocks": not (allowed or found.outcome in ("pass", "warn"))})


def _passed(lines: list[Check]) -> str:
    warnings = [found.name for found in lines if found.outcome == "warn"]
    return f"nothing blocks; warnings: {', '.join(warnings)}" if warnings else "every check passed"
