"""The cost of a training step of each method, compared with cross-entropy; and of IFL's environment update.

    python benchmarks/method_cost.py [--device cpu] [--threads 2] [--rounds 30] [--date 2026-01-01] [--note TEXT]

Measures every module of ltpipe.methods with its default options (except ifl: its centres, which by default begin later,
are on). Each method is in its first phase, or in the first phase after a finished run if it can start from one. The
network is ResNet-32, with 128 images of 32 x 32 pixels and 100 classes. All methods take turns in every round, so that
changes of the machine's speed affect all of them.

    whole step  as in the training loop: pixels, augmentation (crop, flip, and what the method adds), the batch hook,
                forward, loss, backward, optimiser, after_step. In units of cross-entropy's step of the same round; the
                median over the rounds. BBN's step has two batches of 128. What is done once an epoch is not included
                (the order of the images, begin_epoch)
    own work    the loss (forward, and backward to the network's outputs) and after_step, less those of cross-entropy,
                as a share of cross-entropy's whole step. From the fastest rounds, because on a shared machine all
                disturbances only add time

A method without a phase (tau_norm) has no step. The environment update is measured for 113,460 images of 1,000 classes,
and compared with a loop over classes. --note: what else the machine did, for the result file. Writes
benchmarks/results/method_cost.json.
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

from ltpipe.config.spec import menu_names
from ltpipe.data.sampling.class_sizes import exponential_sizes
from ltpipe.interface.streams import Problem
from ltpipe.methods import ifl
from ltpipe.models.model import Model
from ltpipe.models.network import Output
from ltpipe.recipe.run import MethodChoice, Run
from ltpipe.recipe.schedule import Schedule
from ltpipe.training import determinism, loop, optimiser
from ltpipe.training.images import SplitImages

BATCH, CLASSES, SIDE = 128, 100, 32
MODEL = Model(backbone="resnet32", image=SIDE)
# The learning rate is so small that the weights hardly change, and every round does the same work.
SCHEDULE = Schedule(epochs=200, batch=BATCH, lr=1e-6, weight_decay=2e-4, augment={"crop": 4, "flip": True})
OPTIONS: dict[str, dict[str, Any]] = {"ifl": {"centre_from": [0], "centre_weight": [0.005]}}
NAMES = menu_names("ltpipe.methods")


def make_split(device: torch.device) -> SplitImages:
    """Return images of noise with the class sizes of CIFAR-100-LT at rho 100."""
    labels = np.repeat(np.arange(CLASSES), exponential_sizes(500, 100, CLASSES))
    pixels = np.random.RandomState(0).randint(0, 256, (len(labels), SIDE, SIDE, 3)).astype(np.uint8)
    return SplitImages.of(pixels, np.arange(len(labels)), labels, np.zeros_like(labels), device, resident=8e9)


def can_start_from_run(choice: MethodChoice, problem: Problem) -> bool:
    """Tell whether the method must or can start from a finished run, which then replaces its first phase."""
    plain, started = (choice.build(problem, start) for start in (False, True))
    phase = SCHEDULE.phase()
    return plain.needs().start_from or len(started.phases(phase)) < len(plain.phases(phase))


class Subject:
    """A method at the beginning of its first phase, with functions for the work to measure.

    trains: whether it has a phase; without one, there is nothing to measure.
    """

    def __init__(self, name: str, images: SplitImages) -> None:
        choice = {"method": name, "options": OPTIONS.get(name, {})}
        problem = Problem(images.labels.cpu().numpy(), CLASSES)
        start = "ce" if can_start_from_run(MethodChoice(**choice), problem) else None
        run = Run(split="train", start_from=start, **choice)
        self.task = loop.Task(name, run, SCHEDULE, MODEL, 0, CLASSES, images, images, "", Path("no resume point"))
        self.state = loop._initial_state(self.task)
        phases = self.state.method.phases(SCHEDULE.phase())
        self.trains = bool(phases)
        if not self.trains:
            return
        self.state.augment, self.state.method.clock.epochs = phases[0].augment, sum(phase.epochs for phase in phases)
        self.state.network.eval()
        self.state.method.begin_epoch(lambda which: loop._embed(self.task, self.state, which))
        self.optimizer = optimiser.build(self.state.network, self.state.method, phases[0], SCHEDULE)
        optimiser.set_modes(self.state.network, phases[0])
        self.rows = loop._draw_steps(self.task, self.state)[0]
        generator = determinism.generator(images.device, 0)
        pairs = zip(self.rows, self.pixels(), strict=True)
        streams = [loop._make_batch(self.task, self.state, rows, pixels, generator) for rows, pixels in pairs]
        self.batch = self.state.method.batch(tuple(streams))
        with torch.no_grad():
            self.out = loop.forward(self.state.network, self.batch.images, "fp32")

    def pixels(self) -> list[torch.Tensor]:
        """Return the pixels of the step's images, a tensor for each stream, as the loop gets them."""
        ((_, _, pixels),) = self.task.train.prefetch([self.rows], 0)
        return pixels

    def do_own_work(self) -> None:
        """Compute loss and after_step, with gradients only down to the network's outputs."""
        experts = None if self.out.experts is None else self.out.experts.detach().requires_grad_()
        logits = self.out.logits.detach().requires_grad_() if experts is None else experts.mean(dim=1)
        out = Output(self.out.features.detach().requires_grad_(), logits, experts)
        self.state.method.loss(out, self.batch)["loss"].backward()
        with torch.no_grad():
            self.state.method.after_step(self.out, self.batch)

    def do_step(self) -> None:
        """Take a step of the training loop."""
        loop._train_step(self.task, self.state, self.optimizer, self.rows, self.pixels(), 0)


def milliseconds(work: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Return the milliseconds of a call of `work`: the mean of `times` calls."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - began) / times


def measure_steps(subjects: dict[str, Subject], device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Return the figures of `summarise` for each method. The first round warms up and is not counted."""
    own: dict[str, list[float]] = {name: [] for name in subjects}
    whole: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds + 1):
        for name, subject in subjects.items():
            own[name].append(milliseconds(subject.do_own_work, device, 5))
            whole[name].append(milliseconds(subject.do_step, device))
    return {name: summarise(own[name][1:], own["ce"][1:], whole[name][1:], whole["ce"][1:]) for name in subjects}


def summarise(own: list[float], own_ce: list[float], whole: list[float], whole_ce: list[float]) -> dict[str, float]:
    """Return the figures of a method from the milliseconds of its rounds and of cross-entropy's.

    Own work and whole steps in ms, own work less CE's as a share of CE's step, whole steps in steps of CE.
    """
    ratios = [mine / ce for mine, ce in zip(whole, whole_ce, strict=True)]
    return {
        "own_ms": statistics.median(own),
        "own_fastest_ms": min(own),
        "share_of_ce_step": (min(own) - min(own_ce)) / min(whole_ce),
        "step_ms": statistics.median(whole),
        "step_fastest_ms": min(whole),
        "steps_of_ce": statistics.median(ratios),
        "steps_of_ce_min": min(ratios),
        "steps_of_ce_max": max(ratios),
    }


def naive_pareto_weights(scores: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Compute `ifl.pareto_weights` by a loop over classes."""
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


def measure_environment_update(device: torch.device, rounds: int) -> dict[str, Any]:
    """Return the seconds of an update for as many images as Train-GLT has, and the largest difference from the loop."""
    classes, random = 1000, np.random.RandomState(0)
    counts = exponential_sizes(1280, 256, classes)
    labels = np.repeat(np.arange(classes), np.maximum(counts * 113460 // counts.sum(), 3))
    rest = random.randint(0, classes, max(113460 - len(labels), 0))
    labels = random.permutation(np.concatenate([labels, rest])[:113460])
    scores = random.beta(0.5, 0.5, len(labels))
    inputs = torch.tensor(scores, device=device), torch.tensor(labels, device=device)
    times = [milliseconds(lambda: ifl.pareto_weights(*inputs, classes), device) / 1000 for _ in range(rounds + 1)][1:]
    weights = ifl.pareto_weights(*inputs, classes).cpu().numpy()
    began = time.perf_counter()
    difference = np.abs(weights - naive_pareto_weights(scores, labels, classes)).max()
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
@click.option("--date", default=None, help="Date of the measurement; default: today, UTC.")
@click.option("--note", default="", help="What else the machine did.")
def main(device: str, threads: int, rounds: int, date: str | None, note: str) -> None:
    """Measure the cost of each method, print it, and write it to a file."""
    torch.set_num_threads(threads)
    target = torch.device(device)
    images = make_split(target)
    subjects = {name: subject for name in NAMES if (subject := Subject(name, images)).trains}
    measured = measure_steps(subjects, target, rounds)
    cpu = f"{platform.machine()} CPU, {threads} thread{'s' if threads > 1 else ''}"
    result = {
        "date": date or datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(target) if target.type == "cuda" else cpu,
        "note": note,
        "torch": torch.__version__,
        "shapes": f"ResNet-32, {BATCH} x 3 x {SIDE} x {SIDE}, {CLASSES} classes",
        "n": rounds,
        "steps": measured,
        "share_of_step": {name: figures["share_of_ce_step"] for name, figures in measured.items()},
        "whole_step": {name: figures["steps_of_ce"] for name, figures in measured.items()},
        "no_steps": sorted(set(NAMES) - set(subjects)),
        "environment_update": measure_environment_update(target, rounds),
    }
    for name, row in measured.items():
        print(
            f"{name:16} step {row['step_ms']:7.1f} ms, {row['steps_of_ce']:5.2f} of CE's "
            f"({row['steps_of_ce_min']:.2f} to {row['steps_of_ce_max']:.2f})   own {row['own_ms']:7.3f} ms "
            f"(fastest {row['own_fastest_ms']:7.3f}), beyond CE {row['share_of_ce_step']:7.3%} of a CE step"
        )
    print(f"no step: {', '.join(result['no_steps'])}")
    update = result["environment_update"]
    print(
        f"environment update, {update['images']} images, {update['classes']} classes: {update['median_s']:.4f} s "
        f"(loop over classes {update['naive_s']:.2f} s), largest difference {update['largest_difference']:.1e}"
    )
    path = Path(__file__).parent / "results" / "method_cost.json"
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
