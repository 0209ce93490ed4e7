"""A long-tailed problem of 25 training images that every method trains on in a fraction of a second."""

import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from ltpipe.config.spec import load_item, menu_names
from ltpipe.interface.streams import Problem
from ltpipe.models.model import Model
from ltpipe.recipe.run import Run, build_network
from ltpipe.recipe.schedule import Schedule
from ltpipe.training import checkpoint, determinism, loop
from ltpipe.training.images import SplitImages

COUNTS = (12, 7, 4, 2)
SIZE = 8
CPU = torch.device("cpu")
torch.set_num_threads(1)  # a second thread would only wait for tensors of this size
MODEL = Model(backbone="cnn", image=SIZE, options={"width": 4})
SCHEDULE = Schedule(
    epochs=2, batch=8, lr=0.05, weight_decay=0.0, augment={"crop": 1, "flip": True}, save_every=1, save_minutes=None
)
NAMES = menu_names("ltpipe.methods")


def example(name):
    """Return options with which a method shows all that it does within two epochs."""
    return dict(getattr(load_item("ltpipe.methods", name), "EXAMPLE", {}))


def images(counts):
    """Return a split with these class sizes; the images of a class have the same colour, plus noise."""
    random = np.random.RandomState(0)
    labels = np.repeat(np.arange(len(counts)), counts)
    colours = random.randint(30, 225, (len(counts), 3))
    pixels = colours[labels][:, None, None] + random.randint(-30, 31, (len(labels), SIZE, SIZE, 3))
    rows = np.arange(len(labels))
    return SplitImages.of(pixels.astype(np.uint8), rows, labels, np.minimum(labels, 2), CPU, resident=1e9)


TRAIN, VAL = images(COUNTS), images((5, 3, 2, 1))
PROBLEM = Problem(TRAIN.labels.numpy(), len(COUNTS))


def task(folder, method, options=None, *, schedule=SCHEDULE, seed=0, start=None):
    """Return a training run of `method`, after a finished run of cross-entropy if it needs a run to start from."""
    run = Run(method=method, options=options or {}, split="train")
    if start is None and run.build(PROBLEM, True).needs().start_from:
        start = cross_entropy()
    if start is not None:
        run = Run(method=method, options=options or {}, split="train", start_from="ce")
    return loop.Task(
        name=f"tiny.{method}",
        run=run,
        schedule=schedule,
        model=MODEL,
        seed=seed,
        classes=len(COUNTS),
        train=TRAIN,
        val=VAL,
        fingerprint=repr((run, schedule.model_copy(update={"save_every": None}), seed)),
        resume=Path(folder) / "resume.pt",
        start=start,
    )


@functools.cache
def cross_entropy():
    """Return the weights of a finished run of cross-entropy."""
    unsaved = SCHEDULE.model_copy(update={"save_every": 10**6})
    return loop.fit(task("no folder: nothing is saved", "ce", schedule=unsaved))[0]


def built(of):
    """Return network, method and phases before training, with the clock as the loop sets it."""
    determinism.fix(of.seed)
    network, method = build_network(of.run, of.model, PROBLEM)
    phases = method.phases(of.schedule.phase())
    method.clock.epochs = sum(phase.epochs for phase in phases)
    return SimpleNamespace(network=network, method=method, phases=phases)


SAVE = checkpoint.save_resume


class Killed(Exception):
    """Stands for the end of the process."""


class Killer:
    """Replaces checkpoint.save_resume: counts saves, and raises Killed before or after the save with that number."""

    def __init__(self, before=0, after=0):
        self.before, self.after, self.saves = before, after, 0

    def __call__(self, path, state):
        self.saves += 1
        if self.saves == self.before:
            raise Killed
        SAVE(path, state)
        if self.saves == self.after:
            raise Killed


def same(first, second):
    """Tell whether names and bits are equal; NaN equals NaN."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name].nan_to_num(-7.0), second[name].nan_to_num(-7.0)) for name in first
    )
