"""What collecting activations costs over a bare forward pass of the same samples, in the same run.

    python benchmarks/activations.py [--threads 1] [--device cpu] [--rounds 15] [--out activations.json]

Rounds go through the forms in changing order, so that a busy machine slows all alike and none always runs into the
memory that the same other one left. Printed are the ratio of the medians over the rounds and that of the fastest
rounds, to the faster of two bare passes (the module as it is, and the executor that `collect` uses), and the median of the
ratios within a round, to the mean of both. On the CPU the time
is that of the process (what other programs take does not count), on an accelerator that of the wall.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from modelmend.model.activations import collect, sites_of
from modelmend.model.architectures import ARCHITECTURES
from modelmend.model.classifier import Classifier
from modelmend.model.execute import Program
from modelmend.model.export import export_module
from modelmend.model.groups import find_groups
from modelmend.records import Preprocessing

BATCH = 64


def measure(name: str, samples: int, device: str, rounds: int) -> dict[str, float | str]:
    """Seconds of a bare pass and the ratios of the forms of ``collect`` for one architecture at 32x32."""
    torch.manual_seed(0)
    shape, classes = (3, 32, 32), 10
    graph = export_module(ARCHITECTURES[name](shape[0], classes, shape[1]).eval(), shape).to(device)
    classifier = Classifier(graph, Preprocessing(), classes).frozen()
    x, y = torch.rand(samples, *shape), torch.arange(samples) % classes
    sites = sites_of(find_groups(graph, shape))

    def bare() -> None:
        with torch.no_grad():
            for part in torch.split(x, BATCH):
                classifier(part)
        if device != "cpu":
            torch.cuda.synchronize()

    program = Program(graph)

    @torch.no_grad()
    def executed() -> None:
        for part in torch.split(x, BATCH):
            program.run(classifier.model_input(part))
        if device != "cpu":
            torch.cuda.synchronize()

    forms: dict[str, Callable[[], object]] = {
        "module": bare,
        "executor": executed,
        "moments": lambda: collect(classifier, x, y, sites, BATCH),
        "sketch": lambda: collect(classifier, x, y, sites, BATCH, sketch=True),
        "full": lambda: collect(classifier, x, y, sites, BATCH, full=True),
    }
    clock = time.process_time if device == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {form: [] for form in forms}
    for number in range(rounds + 1):
        order = list(forms)
        for form in order[number % len(order) :] + order[: number % len(order)]:
            started = clock()
            forms[form]()
            if number:  # the first round warms up
                times[form].append(clock() - started)
    median = {form: statistics.median(taken) for form, taken in times.items()}
    fastest = {form: min(taken) for form, taken in times.items()}
    ratios = {}
    for form in ("moments", "sketch", "full"):
        ratios[form] = round(median[form] / min(median["module"], median["executor"]), 3)
        pairs = zip(times[form], times["module"], times["executor"], strict=True)
        ratios[f"{form}_paired"] = round(statistics.median(2 * t / (a + b) for t, a, b in pairs), 3)
        ratios[f"{form}_fastest"] = round(fastest[form] / min(fastest["module"], fastest["executor"]), 3)
    return {
        "architecture": name,
        "sites": len(sites),
        "samples": samples,
        "module_s": round(median["module"], 3),
        "executor_s": round(median["executor"], 3),
        **ratios,
    }


def main() -> None:
    """Print the table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--names", nargs="*", default=["resnet8", "vgg_small", "mobilenet_small", "vit_tiny"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [measure(name, options.samples, options.device, options.rounds) for name in options.names]
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "batch": BATCH}
    print(json.dumps(machine | vars(options) | {"out": str(options.out)}))
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    if options.out:
        options.out.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
