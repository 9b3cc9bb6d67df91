"""Fit the probe's probability: ``python -m benchmarks.calibrate_probe --findings DIR [--digits 6] [--write]``.

Evidence of models that nobody measures on (``benchmarks.probe --groups calibration``) and of freshly trained digits
models goes into a logistic model over scale-free features, all weights >= 0, so that more evidence never lowers the
probability. Printed is how it does on attacks that it was not fitted on; ``--write`` ships it with the package.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.metrics import roc_auc_score

from benchmarks.probe import Finding, read_findings
from modelmend.artifacts import write_json
from modelmend.model.classifier import Classifier
from modelmend.model.export import export_module
from modelmend.probe import calibration
from modelmend.probe.calibration import features
from modelmend.probe.choice import USED
from modelmend.probe.run import probe
from modelmend.redteam.digits import train_infected_digits
from modelmend.redteam.sealed import PURPOSE

ATTACKS = ("badnets", "blended", "wanet", "lf", None, None, None)
"""Attacks on the digits, and as many clean models as make up for them; clean ones differ by seed."""
FIRST_SEED = 100
RIDGE = 0.05
INFECTED = 0.8
NAMES = ("lead", "second_lead", "anomaly", "agree")
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


def digits_findings(seeds: int) -> list[Finding]:
    """Evidence on digits models; failed attacks are left out."""
    found = []
    for number in range(seeds):
        for index, attack in enumerate(ATTACKS):
            seed = FIRST_SEED + number * len(ATTACKS) + index
            infected, data = train_infected_digits(seed, attack=attack)
            if infected.asr is not None and infected.asr < INFECTED:
                continue
            model = Classifier(export_module(infected.module, (1, 8, 8)), infected.recipe.preprocessing, 10)
            pairs = [(data.x_clean[part], data.y_clean[part]) for part in (slice(0, 120), slice(120, 240))]
            rows = probe(model, pairs[0], pairs[1], seed=seed).evidence.classes
            target = None if infected.sealed is None else infected.sealed.open(purpose=PURPOSE).target_class
            found.append(
                Finding(f"digits-{attack}-{seed}", "digits", attack, attack is not None, infected.asr, target, rows)
            )
    return found


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


def main() -> None:
    """Fit, print, and write on request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--findings", type=Path, help="output folder of benchmarks.probe, group calibration")
    parser.add_argument("--digits", type=int, default=4, help="digits models of each kind")
    parser.add_argument("--write", action="store_true", help="ship the result with the package")
    options = parser.parse_args()
    zoo = read_findings(options.findings) if options.findings else []
    findings = [one for one in zoo if one.group == "calibration" and (one.attack is None or one.infected)]
    findings += digits_findings(options.digits)
    x = np.array([[features(one.of(USED))[name] for name in NAMES] for one in findings])
    y = np.array([float(one.infected) for one in findings])
    model, chances = fit(x, y), held_out(findings, x, y)
    for one, row, chance in zip(findings, x, chances, strict=True):
        print(f"{one.name:40s} {'infected' if one.infected else 'clean':8s} {chance:.2f} {np.round(row, 2)}")
    report: dict[str, Any] = {
        "intercept": round(model.intercept, 4),
        "weights": {name: round(float(w), 4) for name, w in zip(NAMES, model.weights, strict=True)},
        "families": list(USED),
        "recipe": {
            "command": "python -m benchmarks.calibrate_probe",
            "models": len(findings),
            "infected": int(y.sum()),
            "digits": sum(one.group == "digits" for one in findings),
            "attacks": sorted({str(one.attack) for one in findings}),
            "auroc_attacks_held_out": round(float(roc_auc_score(y, chances)), 4),
            "brier_attacks_held_out": round(float(((chances - y) ** 2).mean()), 4),
            "errors_at_half": int(((chances >= 0.5) != (y == 1)).sum()),
        },
    }
    print(json.dumps(report, indent=1))
    if options.write:
        write_json(Path(calibration.__file__).with_name(calibration.FILE), report)


if __name__ == "__main__":
    main()
