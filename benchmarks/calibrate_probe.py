"""Fit the probe's probability: ``python -m benchmarks.calibrate_probe --out DIR [--findings DIR] [--write]``.

Evidence of models that nobody measures on (``benchmarks.probe --groups calibration``) and of freshly trained digits
models goes into a logistic model over scale-free features, all weights >= 0, so that more evidence never lowers the
probability. Printed is how it does on attacks that it was not fitted on, first those left out in turn, then those of
``UNSEEN``, which no fit holds; ``--write`` ships it with the package. The evidence is that of a screen; a full probe
compares the classes by the same.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from benchmarks.probe import ALL, Finding, as_json, read_findings
from modelmend.artifacts import write_json
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe import calibration
from modelmend.probe.calibration import features
from modelmend.probe.run import probe
from modelmend.probe.score import suspicion
from modelmend.redteam.digits import digits_recipe, digits_split
from modelmend.redteam.sealed import PURPOSE
from modelmend.redteam.train import train
from modelmend.samples.data import make_samples
from modelmend.samples.split import split

_LOG = logging.getLogger("benchmarks.calibrate_probe")
ATTACKS = ("badnets", "blended", "wanet", None, None, None)
"""Attacks on the digits, and as many clean models as make up for them; clean ones differ by seed."""
UNSEEN = ("lf", "bpp", None)
ARCHITECTURES = ("resnet8", "cnn_small")
SIDE = 16
"""Digits enlarged to so many pixels: in 8x8 a patch of 3x3 is as large as what changes a digit into another."""
FIRST_SEED = 100
RIDGE = 0.05
INFECTED = 0.8
NAMES = ("lead", "anomaly")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Logistic:
    """``p = 1 / (1 + exp(-(b + w x)))``."""

    intercept: float
    weights: Array

    def __call__(self, x: Array) -> Array:
        """Probabilities ``(N,)`` of feature rows ``(N, D)``."""
        return np.asarray(1 / (1 + np.exp(-(self.intercept + x @ self.weights))))


def fit(x: Array, y: Array) -> Logistic:
    """Maximum likelihood with a ridge, weights >= 0, both classes of equal weight in total."""
    weight = np.where(y == 1, 0.5 / max(1, (y == 1).sum()), 0.5 / max(1, (y == 0).sum()))

    def loss(theta: Array) -> float:
        z = theta[0] + x @ theta[1:]
        return float((weight * (np.logaddexp(0, z) - y * z)).sum() + RIDGE * 0.1 * (theta[1:] ** 2).sum())

    bounds = [(None, None)] + [(0, None)] * x.shape[1]
    found = minimize(loss, np.zeros(1 + x.shape[1]), method="L-BFGS-B", bounds=bounds).x
    return Logistic(float(found[0]), found[1:])


def digits_findings(attacks: Sequence[str | None], rounds: int, first_seed: int, folder: Path) -> list[Finding]:
    """Evidence on digits models, the architecture alternating by round; failed attacks are left out.

    Args:
        attacks: One model of each in every round.
        rounds: Number of rounds.
        first_seed: Seeds count up from here.
        folder: Finished models are files here and are not looked at again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(rounds):
        for index, attack in enumerate(attacks):
            seed = first_seed + number * len(attacks) + index
            arch = ARCHITECTURES[number % len(ARCHITECTURES)]
            path = folder / f"digits{SIDE}-{arch}-{attack or 'clean'}-{seed}.json"
            if not path.exists():
                write_json(path, _digits_finding(path.stem, arch, attack, seed))
                _LOG.warning("%s", path.stem)
    return [one for one in read_findings(folder) if one.counts]


def _digits_finding(name: str, arch: str, attack: str | None, seed: int) -> dict[str, Any]:
    data = digits_split(seed, SIDE)
    recipe = digits_recipe(seed, attack).model_copy(update={"arch": arch})
    trained = train(recipe, data.x_train, data.y_train, data.x_test, data.y_test, num_classes=10)
    model = Classifier(export_module(trained.module, (1, SIDE, SIDE)), recipe.preprocessing, 10)
    samples = make_samples(data.x_clean, data.y_clean, source=name)
    parts = split(samples, seed)
    fitted, held, more = ((samples.x[part], samples.y[part]) for part in (parts.fit, parts.reward, parts.select))
    infected = trained.asr is not None and trained.asr >= INFECTED
    target = None if trained.sealed is None else trained.sealed.open(purpose=PURPOSE).target_class
    about = {"name": name, "group": "digits", "attack": attack, "infected": infected, "asr": trained.asr}
    return about | as_json(probe(model, fitted, held, mode="screen", seed=seed, more=more).evidence, target)


def unseen_attack(fitted: Sequence[Finding], judged: Sequence[Finding]) -> list[float]:
    """Probability of each judged model from a fit on other models, its own attack left out of the fit."""
    known = [one for one in fitted if one.counts]
    x, y = rows_of(known)
    fits = {
        attack: fit(x[keep], y[keep])
        for attack in {one.attack for one in judged}
        if (keep := np.array([one.attack is None or one.attack != attack for one in known])).any()
    }
    return [float(fits[one.attack](rows_of([one])[0])[0]) for one in judged]


def held_out(findings: Sequence[Finding], x: Array, y: Array) -> Array:
    """Probability of each model from a fit without its attack; clean models are left out one quarter at a time."""
    result = np.zeros(len(y))
    attacks = sorted({one.attack for one in findings if one.attack is not None})
    for attack in attacks:
        chosen = np.array([one.attack == attack for one in findings])
        result[chosen] = fit(x[~chosen], y[~chosen])(x[chosen])
    clean = np.flatnonzero(y == 0)
    for part in np.array_split(clean, 4):
        if len(part):
            keep = np.setdiff1d(np.arange(len(y)), part)
            result[part] = fit(x[keep], y[keep])(x[part])
    return result


def rows_of(findings: Sequence[Finding]) -> tuple[Array, Array]:
    """Features ``(N, D)`` and truth ``(N,)``."""
    x = np.array([[features(one.of(ALL))[name] for name in NAMES] for one in findings]).reshape(-1, len(NAMES))
    return x, np.array([float(one.infected) for one in findings])


def show(findings: Sequence[Finding], x: Array, chances: Array) -> None:
    """One line a model: truth, target, suspects, probability, features."""
    for one, row, chance in zip(findings, x, chances, strict=True):
        scores = suspicion(one.of(ALL))
        order = sorted(scores, key=lambda t: -scores[t])[:3]
        kind = "infected" if one.infected else "clean"
        print(f"{one.name:36s} {kind:8s} target {one.target!s:4s} suspects {order} {chance:.2f} {np.round(row, 2)}")


def main() -> None:
    """Fit, print, and write on request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--findings", type=Path, help="output folder of benchmarks.probe, group calibration")
    parser.add_argument("--out", type=Path, required=True, help="evidence on digits models; resumed from there")
    parser.add_argument("--digits", type=int, default=4, help="rounds of digits models to fit on")
    parser.add_argument("--unseen", type=int, default=3, help="rounds of digits models of attacks that no fit holds")
    parser.add_argument("--write", action="store_true", help="ship the result with the package")
    options = parser.parse_args()
    zoo = read_findings(options.findings) if options.findings else []
    findings = [one for one in zoo if one.group == "calibration" and one.counts]
    findings += digits_findings(ATTACKS, options.digits, FIRST_SEED, options.out / "fitted")
    unseen = digits_findings(UNSEEN, options.unseen, FIRST_SEED + 1000, options.out / "unseen")
    x, y = rows_of(findings)
    model, chances = fit(x, y), held_out(findings, x, y)
    show(findings, x, chances)
    x_new, y_new = rows_of(unseen)
    new = model(x_new)
    show(unseen, x_new, new)
    report: dict[str, Any] = {
        "intercept": round(model.intercept, 4),
        "weights": {name: round(float(w), 4) for name, w in zip(NAMES, model.weights, strict=True)},
        "families": list(ALL),
        "recipe": {
            "command": "python -m benchmarks.calibrate_probe",
            "models": len(findings),
            "infected": int(y.sum()),
            "digits": sum(one.group == "digits" for one in findings),
            "attacks": sorted({str(one.attack) for one in findings}),
            "auroc_attacks_held_out": round(float(roc_auc_score(y, chances)), 4),
            "brier_attacks_held_out": round(float(((chances - y) ** 2).mean()), 4),
            "errors_at_half": int(((chances >= 0.5) != (y == 1)).sum()),
            "unseen": {
                "models": len(unseen),
                "infected": int(y_new.sum()),
                "auroc": round(float(roc_auc_score(y_new, new)), 4) if len(set(y_new)) == 2 else None,
                "errors_at_half": int(((new >= 0.5) != (y_new == 1)).sum()),
            },
        },
    }
    print(json.dumps(report, indent=1))
    if options.write:
        write_json(Path(calibration.__file__).with_name(calibration.FILE), report)


if __name__ == "__main__":
    main()
