"""The one training loop. A method changes it through hooks only; it contains no method's name.

The position (phase, epoch, step) says everything about the order of images: each epoch's order and each step's
augmentation come from generators that are functions of seed and position. A resume point holds the position, weights,
optimiser, the global generators and the log, so that a resumed run equals an uninterrupted one bit for bit.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ltpipe.config.spec import Refused
from ltpipe.interface.method import Embedding, Method
from ltpipe.interface.phases import Augment, Phase
from ltpipe.interface.streams import Batch, Problem
from ltpipe.layers.branches import Branches
from ltpipe.models.model import Model
from ltpipe.models.network import Network, Output
from ltpipe.models.pixels import channel_scale, normalise
from ltpipe.recipe.run import Run, build
from ltpipe.recipe.schedule import Schedule
from ltpipe.storage.manifest import GROUPS
from ltpipe.training import checkpoint, determinism, optimiser, samplers
from ltpipe.training.augment.batch import augment_batch
from ltpipe.training.images import SplitImages

log = logging.getLogger("ltpipe.training")
CHUNK = 512  # images of one forward pass without gradients


@dataclass(frozen=True)
class Task:
    """Everything a training run is made of. `fingerprint` names code, data and parameters; `name` is for the log."""

    name: str
    run: Run
    schedule: Schedule
    model: Model
    seed: int
    classes: int
    train: SplitImages
    val: SplitImages
    fingerprint: str
    resume: Path
    start: dict[str, torch.Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Where the network trains."""
        return self.train.device

    @cached_property
    def normalise(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """uint8 B x H x W x 3 -> the network's input; its constants are on the device once, not copied every step."""
        mean, std = (channel_scale(values, self.device) for values in (self.model.mean, self.model.std))
        return partial(normalise, size=self.model.image, mean=mean, std=std)


@dataclass
class State:
    """What changes while training."""

    network: Network
    method: Method
    phase: int = 0
    epoch: int = 0  # of the phase
    augment: Augment = field(default_factory=Augment)
    unsaved: int = 0  # steps since the last resume point
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)


class Diverged(Refused):
    """A loss that is not a finite number."""

    exit_code = 4


def fit(task: Task) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any]]:
    """Train to the end, resuming if possible. Returns weights, one log row an epoch, and the method's facts."""
    determinism.fix(task.seed, task.schedule.threads)
    state = _fresh(task)
    phases = state.method.phases(task.schedule.phase())
    state.method.clock.epochs = sum(phase.epochs for phase in phases)
    saved, why = checkpoint.load_resume(task.resume, task.fingerprint)
    log.info("%s: %s on %s, %s", task.name, task.run.method, task.device, why)
    with logging_redirect_tqdm():
        for number in range(saved["phase"] if saved else 0, len(phases)):
            _run_phase(task, state, phases, number, saved)
            saved = None
    state.network.eval()
    state.method.clock.epoch = state.method.clock.epochs
    facts = state.method.finish(state.network, lambda split: _embed(task, state, split))
    task.resume.unlink(missing_ok=True)
    return state.network.state_dict(), state.history, facts


def _fresh(task: Task) -> State:
    problem = Problem(task.train.labels.cpu().numpy(), task.classes)
    network, method = build(task.run, task.model, problem)
    for part in network.backbone.modules():
        if isinstance(part, Branches):
            part.partition_batch = method.needs().partition_batch
    if task.start is not None:
        kept = {k: v for k, v in task.start.items() if k.split(".")[0] in method.needs().keeps}
        new = {k: v for k, v in network.state_dict().items() if k.split(".")[0] not in method.needs().keeps}
        try:
            network.load_state_dict(kept | new)
        except RuntimeError as error:
            raise Refused(f"{task.name}: the network of {task.run.start_from} does not fit: {error}") from None
    network.to(task.device).to(memory_format=torch.channels_last)
    return State(network, method)


def _run_phase(task: Task, state: State, phases: tuple[Phase, ...], number: int, saved: dict[str, Any] | None) -> None:
    phase = phases[number]
    state.phase, state.augment = number, phase.augment
    sgd = optimiser.sgd(state.network, state.method, phase, task.schedule)
    first = 0
    if saved is not None:
        first = saved["epoch"]
        _restore(task, state, sgd, saved)
    before, clock = sum(p.epochs for p in phases[:number]), state.method.clock
    for epoch in range(first, phase.epochs):
        state.epoch, clock.phase, clock.epoch = epoch, number, before + epoch
        start = saved["step"] if saved is not None and epoch == first else 0
        _run_epoch(task, state, phase, sgd, start)


def _run_epoch(task: Task, state: State, phase: Phase, sgd: torch.optim.SGD | None, start: int) -> None:
    began, lr = time.perf_counter(), optimiser.rate(phase, state.epoch)
    if start == 0:
        state.sums = {}
        state.network.eval()
        state.method.begin_epoch(lambda split: _embed(task, state, split))
    optimiser.set_modes(state.network, phase)
    for group in sgd.param_groups if sgd else ():
        group["lr"] = lr
    seen, steps = 0, _steps(task, state)
    totals = {name: torch.tensor(value, device=task.device, dtype=torch.float64) for name, value in state.sums.items()}
    title = f"{task.name} epoch {state.method.clock.epoch + 1}"
    bar = tqdm(total=len(steps), initial=start, desc=title, leave=False, disable=None)
    for step, rows, pixels in task.train.prefetch(steps, start):
        seen += sum(map(len, rows))
        _add(totals, _step(task, state, sgd, rows, pixels, step))
        bar.update(1)
        state.unsaved += 1
        if state.unsaved >= task.schedule.save_every and step + 1 < len(steps):
            _save(task, state, sgd, state.epoch, step + 1, totals)
    bar.close()
    state.sums = {name: float(value) for name, value in totals.items()}
    _end_epoch(task, state, lr, seen / max(time.perf_counter() - began, 1e-9))
    if state.unsaved >= task.schedule.save_every:
        _save(task, state, sgd, state.epoch + 1, 0, {})


def _steps(task: Task, state: State) -> list[list[torch.Tensor]]:
    streams = state.method.streams()
    labels = task.train.labels.cpu()
    cpu = torch.device("cpu")
    keys = [(task.seed, state.phase, state.epoch, "order", number) for number in range(len(streams))]
    orders = [
        samplers.order(stream, labels, determinism.generator(cpu, *key)).to(task.device)
        for stream, key in zip(streams, keys, strict=True)
    ]
    return samplers.batches(streams, orders, task.schedule.batch)


def _step(
    task: Task,
    state: State,
    sgd: torch.optim.SGD | None,
    rows: list[torch.Tensor],
    pixels: list[torch.Tensor],
    step: int,
) -> Any:
    """One optimiser step; returns the sums to log (on the device, so that the device is not waited for)."""
    generator = determinism.generator(task.device, task.seed, state.phase, state.epoch, step, "augment")
    streams = (_batch(task, state, *stream, generator) for stream in zip(rows, pixels, strict=True))
    batch = state.method.batch(tuple(streams))
    out = forward(state.network, batch.images, task.schedule.precision)
    parts = state.method.loss(out, batch)
    if sgd is not None:
        sgd.zero_grad(set_to_none=True)
        parts["loss"].backward()
        sgd.step()
    detached = Output(out.features.detach(), out.logits.detach(), None if out.experts is None else out.experts.detach())
    with torch.no_grad():
        state.method.after_step(detached, batch)
        count = len(batch.labels)
        right = (state.method.predict(detached).argmax(dim=1) == batch.labels).sum()
        return {name: value.detach() * count for name, value in parts.items()} | {"count": count, "right": right}


def _batch(task: Task, state: State, rows: torch.Tensor, pixels: torch.Tensor, generator: torch.Generator) -> Batch:
    images = augment_batch(pixels, state.augment, generator, task.model.image)
    return Batch(task.normalise(images), task.train.labels[rows], rows)


def forward(network: Network, images: torch.Tensor, precision: str) -> Output:
    """A forward pass in `precision`; the output is float32 in both."""
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        out = network(images)
    return Output(out.features.float(), out.logits.float(), None if out.experts is None else out.experts.float())


def _add(totals: dict[str, torch.Tensor], more: dict[str, Any]) -> None:
    for name, value in more.items():
        totals[name] = totals.get(name, 0.0) + torch.as_tensor(value, dtype=torch.float64)


@torch.no_grad()
def _embed(task: Task, state: State, split: str) -> Iterator[Embedding]:
    images: SplitImages = getattr(task, split)
    state.network.eval()
    for pixels, labels, index in images.chunks(CHUNK):
        out = forward(state.network, task.normalise(pixels), task.schedule.precision)
        yield Embedding(out.features, out.logits, labels, index)


def _end_epoch(task: Task, state: State, lr: float, speed: float) -> None:
    """One log row; raises Diverged where a loss is not finite."""
    count = state.sums["count"]
    parts = {name: value / count for name, value in state.sums.items() if name not in ("count", "right")}
    for name, value in parts.items():
        if value != value or abs(value) == float("inf"):
            where = f"epoch {state.method.clock.epoch + 1} of phase {state.phase + 1}"
            raise Diverged(f"{task.name}: {name} is {value} in {where}; lower lr, or lengthen warmup")
    row = {"epoch": state.method.clock.epoch + 1, "phase": state.phase + 1, "lr": lr, **parts}
    row |= {"train_accuracy": 100 * state.sums["right"] / count, **_validate(task, state)}
    state.history.append(row)
    shown = " ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("epoch", "phase"))
    log.info("%s epoch %d: %s (%.0f images/s)", task.name, row["epoch"], shown, speed)


@torch.no_grad()
def _validate(task: Task, state: State) -> dict[str, float]:
    """Accuracy on the validation split, in percent, all and by group; a group without images is absent."""
    state.network.eval()
    right = torch.cat(list(_right(task, state)))
    result = {"val_accuracy": 100 * right.double().mean().item()}
    for number, group in enumerate(GROUPS):
        member = task.val.groups == number
        if member.any():
            result[f"val_{group}"] = 100 * right[member].double().mean().item()
    return result


def _right(task: Task, state: State) -> Iterator[torch.Tensor]:
    for pixels, labels, _ in task.val.chunks(CHUNK):
        out = forward(state.network, task.normalise(pixels), task.schedule.precision)
        yield state.method.predict(out).argmax(dim=1) == labels


def _save(
    task: Task, state: State, sgd: torch.optim.SGD | None, epoch: int, step: int, totals: dict[str, torch.Tensor]
) -> None:
    """A resume point from which the next step is `step` of `epoch`."""
    state.unsaved = 0
    checkpoint.save_resume(
        task.resume,
        {
            "fingerprint": task.fingerprint,
            "phase": state.phase,
            "epoch": epoch,
            "step": step,
            "weights": state.network.state_dict(),
            "optimiser": sgd.state_dict() if sgd else {},
            "rng": determinism.rng_state(task.device),
            "history": state.history,
            "sums": {name: float(value) for name, value in totals.items()},
        },
    )


def _restore(task: Task, state: State, sgd: torch.optim.SGD | None, saved: dict[str, Any]) -> None:
    state.network.load_state_dict(saved["weights"])
    if sgd is not None:
        sgd.load_state_dict(saved["optimiser"])
    determinism.restore_rng(saved["rng"], task.device)
    state.history, state.sums = list(saved["history"]), dict(saved["sums"])
