"""What a method's own work costs beside a whole training step of cross-entropy; and IFL's environment update.

    python benchmarks/method_cost.py [--device cpu] [--threads 2] [--rounds 30] [--date 2026-01-01]

Own work is loss (forward and backward, to the network's outputs) and after_step, less cross-entropy's, on the outputs
of ResNet-32 for 128 images of 32 x 32 pixels and 100 classes. All are measured in turn in every round, so that a slow
moment falls on each. A method of one branch changes nothing else in a step, so that whole steps are measured of
cross-entropy alone and of those with experts, whose network is larger. The environment update is for 113,460 images of
1,000 classes, beside a loop over classes.
Writes benchmarks/results/method_cost.json.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from ltpipe.data.longtail import exponential
from ltpipe.methods import ifl
from ltpipe.methods.base import Batch, Problem
from ltpipe.models.network import Output
from ltpipe.models.spec import Model
from ltpipe.runs import Run, build

BATCH, CLASSES = 128, 100
WHOLE = ("ce", "ride", "tade")
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "ce": {"method": "ce"},
    "logit_adjust": {"method": "logit_adjust"},
    "balanced_softmax": {"method": "balanced_softmax"},
    "class_balanced": {"method": "class_balanced"},
    "ldam": {"method": "ldam"},
    "focal": {"method": "focal"},
    "dro_lt": {"method": "dro_lt"},
    "ifl": {"method": "ifl", "options": {"centre_from": [0], "centre_weight": [0.005]}},
    "ride": {"method": "ride"},
    "tade": {"method": "tade"},
    "tde": {"method": "tde"},
}


class Subject:
    """A method with a network on the device, and functions that do one piece of work."""

    def __init__(self, choice: dict[str, Any], device: torch.device) -> None:
        problem = Problem(np.repeat(np.arange(CLASSES), exponential(500, 100, CLASSES)), CLASSES)
        run = Run(split="train", start_from="ce" if choice["method"] == "dro_lt" else None, **choice)
        self.network, self.method = build(run, Model(backbone="resnet32", image=32), problem)
        self.network.to(device=device, memory_format=torch.channels_last)
        self.method.clock.epochs = 1
        generator = torch.Generator().manual_seed(0)
        rows = torch.randint(0, len(problem.labels), (BATCH,), generator=generator)
        images = torch.randn(BATCH, 3, 32, 32, generator=generator).to(device, memory_format=torch.channels_last)
        labels = torch.from_numpy(problem.labels)[rows].to(device)
        self.batch = Batch(images, labels, rows.to(device))
        self.sgd = torch.optim.SGD(self.network.parameters(), lr=1e-6, momentum=0.9)
        with torch.no_grad():
            self.out = self.network(images)

    def own(self) -> None:
        """Loss and after_step on outputs that are leaves of their own graph."""
        experts = None if self.out.experts is None else self.out.experts.detach().requires_grad_()
        logits = self.out.logits.detach().requires_grad_() if experts is None else experts.mean(dim=1)
        out = Output(self.out.features.detach().requires_grad_(), logits, experts)
        self.method.loss(out, self.batch)["loss"].backward()
        with torch.no_grad():
            self.method.after_step(self.out, self.batch)

    def step(self) -> None:
        """Forward, loss, backward, optimiser, after_step."""
        out = self.network(self.batch.images)
        self.sgd.zero_grad(set_to_none=True)
        self.method.loss(out, self.batch)["loss"].backward()
        self.sgd.step()
        with torch.no_grad():
            experts = None if out.experts is None else out.experts.detach()
            detached = Output(out.features.detach(), out.logits.detach(), experts)
            self.method.after_step(detached, self.batch)


def milliseconds(work: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Of one call."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began) / times


def steps(device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Own work and whole steps in ms, and own work beyond CE's as a share of CE's step.

    The share is of the fastest rounds: on a machine that others use too, everything else only adds.
    """
    subjects = {name: Subject(choice, device) for name, choice in CONFIGURATIONS.items()}
    own: dict[str, list[float]] = {name: [] for name in subjects}
    whole: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds + 1):
        for name, subject in subjects.items():
            own[name].append(milliseconds(subject.own, device, 5))
            if name in WHOLE:
                whole[name].append(milliseconds(subject.step, device))
    result = {}
    for name in subjects:
        result[name] = {"own_ms": statistics.median(own[name][1:]), "own_fastest_ms": min(own[name])}
        if name in WHOLE:
            result[name] |= {"step_ms": statistics.median(whole[name][1:]), "step_fastest_ms": min(whole[name])}
        extra = result[name]["own_fastest_ms"] - result["ce"]["own_fastest_ms"]
        result[name]["share_of_ce_step"] = extra / result["ce"]["step_fastest_ms"]
    return result


def naive(scores: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """`ifl.pareto_weights`, class by class."""
    weights = np.zeros(len(scores))
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        p = scores[rows]
        if len(rows) < 5:
            weights[rows] = 1 / max(len(rows), 1)
            continue
        u = np.abs(1 - (p - p.min()) / (p.max() - p.min() + 1e-9)) + 1e-5
        ranked = np.sort(u)
        ratio = ranked[len(u) - int(0.2 * len(u)) :].mean() / ranked[: int(0.8 * len(u))].mean() + 1e-5
        powers = u ** np.clip(np.log(4) / np.log(ratio), 1, 10) + 1e-12
        weights[rows] = powers / powers.sum()
    return weights


def environments(device: torch.device, rounds: int) -> dict[str, Any]:
    """Seconds of an update for Train-GLT's size, and the largest difference from the loop."""
    classes, random = 1000, np.random.RandomState(0)
    counts = exponential(1280, 256, classes)
    labels = np.repeat(np.arange(classes), np.maximum(counts * 113460 // counts.sum(), 3))
    rest = random.randint(0, classes, max(113460 - len(labels), 0))
    labels = random.permutation(np.concatenate([labels, rest])[:113460])
    scores = random.beta(0.5, 0.5, len(labels))
    given = torch.tensor(scores, device=device), torch.tensor(labels, device=device)
    times = [milliseconds(lambda: ifl.pareto_weights(*given, classes), device) / 1000 for _ in range(rounds + 1)][1:]
    found = ifl.pareto_weights(*given, classes).cpu().numpy()
    began = time.perf_counter()
    difference = np.abs(found - naive(scores, labels, classes)).max()
    return {
        "images": len(labels),
        "classes": classes,
        "n": rounds,
        "median_s": statistics.median(times),
        "fastest_s": min(times),
        "naive_s": time.perf_counter() - began,
        "largest_difference": float(difference),
    }


@click.command()
@click.option("--device", default="cpu")
@click.option("--threads", default=2)
@click.option("--rounds", default=30)
@click.option("--date", default=None, help="Of the measurement; default: today, UTC.")
def main(device: str, threads: int, rounds: int, date: str | None) -> None:
    """Measure, print and write."""
    torch.set_num_threads(threads)
    where = torch.device(device)
    cuda = where.type == "cuda"
    result = {
        "date": date or datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(where) if cuda else f"{platform.machine()} CPU, {threads} threads",
        "torch": torch.__version__,
        "shapes": f"ResNet-32, {BATCH} x 3 x 32 x 32, {CLASSES} classes",
        "n": rounds,
        "steps": (measured := steps(where, rounds)),
        "share_of_step": {name: row["share_of_ce_step"] for name, row in measured.items()},
        "environment_update": environments(where, rounds),
    }
    for name, row in measured.items():
        print(
            f"{name:16} own {row['own_ms']:7.3f} ms (fastest {row['own_fastest_ms']:7.3f})   "
            f"beyond CE {row['share_of_ce_step']:7.3%} of a CE step"
            + (f"   step {row['step_ms']:7.1f} ms (fastest {row['step_fastest_ms']:7.1f})" if name in WHOLE else "")
        )
    update = result["environment_update"]
    print(
        f"environment update, {update['images']} images, {update['classes']} classes: {update['median_s']:.4f} s "
        f"(loop over classes {update['naive_s']:.2f} s), largest difference {update['largest_difference']:.1e}"
    )
    path = Path(__file__).parent / "results" / "method_cost.json"
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
