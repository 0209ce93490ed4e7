"""How far a training is: a bar over all steps of the cell, and an estimate of its whole time in the log."""

import logging
import time
from typing import Any

from tqdm import tqdm

log = logging.getLogger("ltpipe.training")
LOOK = 20  # steps between two looks at what is on the device; each look waits for all queued work
MOVED = 1.5  # an estimate that is this many times longer or shorter than the one that was said is said again


class Progress:
    """The steps of a cell, from all its processes, and the time of those that this process took.

    An epoch has another number of steps than the epochs before it if the method draws otherwise: the total is that of
    a training whose epochs are all like the current one.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.total = 0
        self._bar: tqdm[Any] | None = None
        self.taken = 0  # steps of this process
        self._first_look = 0.0
        self._said: float | None = None

    def begin_epoch(self, epoch: int, epochs: int, steps: int, first_step: int) -> None:
        """Go to a step of an epoch; epoch, first_step: from 0."""
        self.total, at = epochs * steps, epoch * steps + first_step
        if self._bar is None:  # what earlier processes did says nothing about the speed
            self._bar = tqdm(total=self.total, initial=at, leave=False, disable=None, unit="step", smoothing=0.1)
        self._bar.set_description(f"{self.name} epoch {epoch + 1} of {epochs}", refresh=False)
        self._bar.total = self.total
        if not self._bar.disable:  # else it counts nothing
            self._bar.update(at - self._bar.n)

    def step(self) -> bool:
        """Count a step; return whether it is time for a look: after the first one, and then after every LOOK steps."""
        self.taken += 1
        if self._bar is not None:
            self._bar.update(1)
        return (self.taken - 1) % LOOK == 0

    def looked(self) -> None:
        """Estimate the time of the cell; to be called after a look, when all counted steps are done."""
        now = time.monotonic()
        if self.taken == 1:  # the first step is slower: libraries prepare themselves in it
            self._first_look = now
            return
        pace = (now - self._first_look) / (self.taken - 1)  # with the validation and all else between two steps
        seconds = pace * self.total
        if self._said is None or not self._said / MOVED <= seconds <= self._said * MOVED:
            self._said = seconds
            log.info("%s: %s; Ctrl-C keeps what was trained", self.name, estimate(pace, self.total))

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


def estimate(pace: float, steps: int) -> str:
    """Return e.g. "about 8 h in all: 9.0 s a step, 3,200 steps"; pace: seconds a step."""
    shown = f"{pace:.1f} s" if pace >= 1 else f"{1000 * pace:.0f} ms"
    return f"about {duration(pace * steps)} in all: {shown} a step, {steps:,} steps"


def duration(seconds: float) -> str:
    """Return a time in the largest unit of which it has at least two, e.g. "90 s", "5 min", "8 h", "3 days"."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
