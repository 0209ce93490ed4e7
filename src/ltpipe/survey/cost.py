"""How long training will take and how much it will write: an estimate from training steps that are really taken."""

import time
from typing import NamedTuple

import numpy as np

from ltpipe.benchmark import Benchmark

SECONDS = 3.0  # for which steps are measured, after the first one, in which memory is allocated
LEAST = 2  # steps that are measured, however long they take
PIXELS = 128 * 64 * 64  # of the images of a measured step, at most: a whole batch of large ones may take minutes
FEWEST = 8  # images of a measured step
FORWARD = 1 / 3  # cost of a forward pass, as a share of a training step's


class Cost(NamedTuple):
    """seconds: of training all cells, one after the other. size: bytes of packed images, checkpoints and models."""

    seconds: float
    size: int


def measure_step(spec: Benchmark, squares: np.ndarray) -> tuple[float, int]:
    """Return the seconds of a training step of the first run, and the network's number of parameters.

    squares: uint8, N x size x size x 3; a batch repeats them if there are too few.
    """
    import torch

    from ltpipe.interface.streams import Batch, Problem
    from ltpipe.models.pixels import channel_scale, normalise
    from ltpipe.recipe.run import build_network
    from ltpipe.training import optimiser
    from ltpipe.training.augment.batch import augment_batch
    from ltpipe.training.loop import forward

    schedule, run = spec.schedule, next(iter(spec.runs.values())).train
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    count = min(schedule.batch, max(PIXELS // spec.model.image**2, FEWEST))
    rows = np.resize(np.arange(len(squares)), count)
    labels = np.resize(np.arange(spec.expect.classes), max(count, spec.expect.classes))
    network, method = build_network(run, spec.model, Problem(labels, spec.expect.classes))
    network.to(device).to(memory_format=torch.channels_last)
    optimizer = optimiser.build(network, method, schedule.phase(), schedule)
    mean, std = (channel_scale(values, device) for values in (spec.model.mean, spec.model.std))
    pixels = torch.from_numpy(squares[rows]).to(device)
    index, generator = torch.arange(count, device=device), torch.Generator(device).manual_seed(0)
    targets = torch.from_numpy(labels[:count]).to(device)

    def step() -> float:
        began = time.perf_counter()
        changed = augment_batch(pixels, schedule.augment, generator, spec.model.image)
        batch = Batch(normalise(changed, spec.model.image, mean, std), targets, index)
        network.zero_grad()

        def gradient() -> None:
            method.loss(forward(network, batch.images, schedule.precision), batch)["loss"].backward()

        gradient()
        if optimizer is not None:
            optimizer.step(gradient)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    step()
    taken: list[float] = []
    while len(taken) < LEAST or sum(taken) < SECONDS:
        taken.append(step())
    seconds = float(np.median(taken)) * schedule.batch / count
    return seconds, sum(parameter.numel() for parameter in network.parameters())


def trained_epochs(spec: Benchmark) -> int:
    """Return the epochs of all cells together; a run that trains nothing (a post-hoc correction) has none."""
    return sum(
        len(spec.seeds_of(name)) * phase.epochs
        for name, row in spec.runs.items()
        for phase in spec.schedule.phases(row.train, row.train.schedule, spec.expect.classes)
    )


def passes(spec: Benchmark) -> int:
    """Return the passes without gradients of all cells that train nothing: at most one over train and val each."""
    return sum(
        len(spec.seeds_of(name))
        for name, row in spec.runs.items()
        if not spec.schedule.phases(row.train, row.train.schedule, spec.expect.classes)
    )


def estimate(spec: Benchmark, splits: dict[str, int], squares: np.ndarray) -> Cost:
    """Return what the benchmark will cost on this machine. splits: images of train, val and test."""
    seconds, parameters = measure_step(spec, squares)
    steps = splits["train"] / spec.schedule.batch + FORWARD * splits["val"] / spec.schedule.batch
    looks = FORWARD * (splits["train"] + splits["val"]) / spec.schedule.batch
    cells = sum(len(spec.seeds_of(name)) for name in spec.runs)
    images = sum(splits.values()) * spec.source.size**2 * 3
    return Cost(seconds * (steps * trained_epochs(spec) + looks * passes(spec)), images + cells * 2 * 4 * parameters)
