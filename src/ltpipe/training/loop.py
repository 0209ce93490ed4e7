"""The training loop for every method. Methods change it only through hooks; it contains no method's name.

The order of an epoch and the augmentation of a step are drawn by generators that are functions of the seed and of the
position (phase, epoch, step), so they need not be saved. A resume point holds the position, the weights, the optimiser,
the state of the global generators and the log: a resumed run equals an uninterrupted one bit for bit.
"""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ltpipe.config.spec import Refused
from ltpipe.interface.method import Embedding, Method
from ltpipe.interface.phases import Augment, Phase
from ltpipe.interface.streams import Batch, Problem, Stream
from ltpipe.layers.branches import Branches
from ltpipe.models.model import Model
from ltpipe.models.network import Network, Output
from ltpipe.models.pixels import channel_scale, normalise
from ltpipe.recipe.run import Run, build_network
from ltpipe.recipe.schedule import Schedule
from ltpipe.storage.manifest import GROUPS
from ltpipe.training import checkpoint, determinism, micro_batches, optimiser, samplers
from ltpipe.training.augment.batch import augment_batch
from ltpipe.training.images import SplitImages
from ltpipe.training.pictures import Pictures

log = logging.getLogger("ltpipe.training")
CHUNK = 512  # images of one forward pass without gradients


@dataclass(frozen=True)
class Task:
    """Everything that a training run needs.

    name: for messages. fingerprint: identifies code, data and parameters; a resume point of another one is not used.
    resume: path of the resume point. start: weights of the finished run that this run starts from, if any. pictures:
    where random boxes are taken from, if not from the packed squares of `train`.
    """

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
    pictures: Pictures | None = None

    @property
    def device(self) -> torch.device:
        """The device on which the network is trained."""
        return self.train.device

    @cached_property
    def normalise(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """Function: uint8 B x H x W x 3 -> the network's input. Cached, so that its constants are copied only once."""
        mean, std = (channel_scale(values, self.device) for values in (self.model.mean, self.model.std))
        return partial(normalise, size=self.model.image, mean=mean, std=std)


@dataclass
class State:
    """What changes during training."""

    network: Network
    method: Method
    phase: int = 0
    epoch: int = 0  # within the phase, from 0
    augment: Augment = field(default_factory=Augment)
    unsaved: int = 0  # steps since the last resume point
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)  # of losses and counts, over the steps of this epoch
    began: float = field(default_factory=time.perf_counter)  # set back by what earlier processes spent


class Diverged(Refused):
    """The loss is not a finite number."""

    exit_code = 4


def fit(task: Task) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any], float]:
    """Train to the end, from the resume point if there is one.

    Returns the weights, a log row for each epoch, the facts that the method's `finish` returned, and the seconds that
    it took, with those of the processes that wrote the resume points.
    """
    determinism.fix(task.seed)
    with determinism.cpu_threads(task.schedule.threads), logging_redirect_tqdm():
        return _fit(task)


def _fit(task: Task) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any], float]:
    state = _initial_state(task)
    phases = state.method.phases(task.schedule.phase())
    state.method.clock.epochs = sum(phase.epochs for phase in phases)
    saved, why = checkpoint.load_resume(task.resume, task.fingerprint)
    log.info("%s: %s on %s, %s", task.name, task.run.method, task.device, why)
    for number in range(saved["phase"] if saved else 0, len(phases)):
        _run_phase(task, state, phases, number, saved)
        saved = None  # the resume point is only for the first phase that runs
    state.network.eval()
    state.method.clock.epoch = state.method.clock.epochs
    facts = state.method.finish(state.network, lambda split: _embed(task, state, split))
    task.resume.unlink(missing_ok=True)
    return state.network.state_dict(), state.history, facts, time.perf_counter() - state.began


def _initial_state(task: Task) -> State:
    """Build network and method, take the weights of the run that this one starts from, and move them to the device."""
    problem = Problem(task.train.labels.cpu().numpy(), task.classes)
    network, method = build_network(task.run, task.model, problem)
    for part in network.backbone.modules():
        if isinstance(part, Branches):
            part.partition_batch = method.needs().partition_batch
    if task.start is not None:
        # The first part of a weight's name is backbone, head or own. Parts that the method does not keep start anew.
        kept = {k: v for k, v in task.start.items() if k.split(".")[0] in method.needs().keeps}
        new = {k: v for k, v in network.state_dict().items() if k.split(".")[0] not in method.needs().keeps}
        try:
            network.load_state_dict(kept | new)
        except RuntimeError as error:
            # torch lists every weight, which may be hundreds
            reason = shorten(str(error), 600, placeholder=" ...")
            raise Refused(f"{task.name}: the network of {task.run.start_from} does not fit: {reason}") from None
    network.to(task.device).to(memory_format=torch.channels_last)  # the layout of the batches that `normalise` returns
    return State(network, method)


def _run_phase(task: Task, state: State, phases: tuple[Phase, ...], number: int, saved: dict[str, Any] | None) -> None:
    """Train phase `number` with an optimiser of its own; `saved` is the resume point inside it, if any."""
    phase = phases[number]
    state.phase, state.augment = number, phase.augment
    optimizer = optimiser.sgd(state.network, state.method, phase, task.schedule)
    first_epoch = 0
    if saved is not None:
        first_epoch = saved["epoch"]
        _restore(task, state, optimizer, saved)
    epochs_before, clock = sum(p.epochs for p in phases[:number]), state.method.clock
    for epoch in range(first_epoch, phase.epochs):
        state.epoch, clock.phase, clock.epoch = epoch, number, epochs_before + epoch
        first_step = saved["step"] if saved is not None and epoch == first_epoch else 0
        _run_epoch(task, state, phase, optimizer, first_step)


def _run_epoch(task: Task, state: State, phase: Phase, optimizer: optimiser.SGD | None, first_step: int) -> None:
    """Train an epoch from `first_step` on, validate, and write resume points on the way."""
    began, lr = time.perf_counter(), optimiser.learning_rate(phase, state.epoch)
    if first_step == 0:  # not if the epoch is resumed: the resume point has the buffers that begin_epoch wrote
        state.sums = {}
        state.network.eval()
        state.method.begin_epoch(lambda split: _embed(task, state, split))
    optimiser.set_modes(state.network, phase)
    for group in optimizer.param_groups if optimizer else ():
        group["lr"] = lr
    seen, steps = 0, _draw_steps(task, state)
    # Sums stay on the device until the epoch ends: reading one would wait for all queued work.
    totals = {name: torch.tensor(value, device=task.device, dtype=torch.float64) for name, value in state.sums.items()}
    title = f"{task.name} epoch {state.method.clock.epoch + 1}"
    bar = tqdm(total=len(steps), initial=first_step, desc=title, leave=False, disable=None)
    for step, rows, pixels in _prefetch(task, state, steps, first_step):
        seen += sum(map(len, rows))
        _add_sums(totals, _train_step(task, state, optimizer, rows, pixels, step))
        bar.update(1)
        state.unsaved += 1
        if state.unsaved >= task.schedule.save_every and step + 1 < len(steps):  # after the last step, see below
            _save(task, state, optimizer, state.epoch, step + 1, totals)
    bar.close()
    state.sums = {name: float(value) for name, value in totals.items()}
    _end_epoch(task, state, lr, seen / max(time.perf_counter() - began, 1e-9))
    if state.unsaved >= task.schedule.save_every:  # with the log row of this epoch, hence after the validation
        _save(task, state, optimizer, state.epoch + 1, 0, {})


def _draw_steps(task: Task, state: State) -> list[list[torch.Tensor]]:
    """Return the rows of each step of the epoch, a tensor on the device for each stream."""
    streams = state.method.streams()
    return samplers.split_into_steps(streams, _draw_orders(task, state, streams, "order"), task.schedule.batch)


def _draw_orders(task: Task, state: State, streams: tuple[Stream, ...], purpose: str) -> list[torch.Tensor]:
    """Return the rows of each stream in the epoch, on the device; each purpose draws rows of its own."""
    labels = task.train.labels.cpu()
    cpu = torch.device("cpu")  # generators of other devices draw other numbers; the order must not depend on it
    keys = [(task.seed, state.phase, state.epoch, purpose, number) for number in range(len(streams))]
    return [
        samplers.draw_order(stream, labels, determinism.generator(cpu, *key)).to(task.device)
        for stream, key in zip(streams, keys, strict=True)
    ]


def _takes_boxes(task: Task, state: State) -> bool:
    """Tell whether this phase takes random boxes from whole pictures."""
    return task.pictures is not None and state.augment.resized_crop is not None


def _prefetch(
    task: Task, state: State, steps: list[list[torch.Tensor]], start: int, *purpose: str
) -> Iterator[tuple[int, list[torch.Tensor], list[torch.Tensor]]]:
    """Yield number, rows and pixels of each step from `start` on: of packed squares, or cropped from whole pictures.

    purpose: what the boxes are drawn for, if not for the steps of the epoch.
    """
    if task.pictures is None or not _takes_boxes(task, state):
        return task.train.prefetch(steps, start)
    key = (task.seed, state.phase, state.epoch, *purpose)
    return task.pictures.prefetch(steps, start, state.augment, key, task.device)


def _train_step(
    task: Task,
    state: State,
    optimizer: optimiser.SGD | None,
    rows: list[torch.Tensor],
    pixels: list[torch.Tensor],
    step: int,
) -> Any:
    """Take an optimiser step, and return the sums to log over its images. They stay on the device."""
    generator = determinism.generator(task.device, task.seed, state.phase, state.epoch, step, "augment")
    # The streams share the generator, so their order matters: a stream continues where the one before it stopped.
    streams = (_make_batch(task, state, *stream, generator) for stream in zip(rows, pixels, strict=True))
    batch = state.method.batch(tuple(streams))
    if optimizer is not None:
        optimizer.zero_grad()
    out, parts = _gradient(task, state, batch, optimizer is not None)
    if optimizer is not None:
        optimizer.step()
    detached = Output(out.features.detach(), out.logits.detach(), None if out.experts is None else out.experts.detach())
    with torch.no_grad():
        state.method.after_step(detached, batch)
        count = len(batch.labels)
        correct = (state.method.predict(detached).argmax(dim=1) == batch.labels).sum()
        return {name: value.detach() * count for name, value in parts.items()} | {"count": count, "right": correct}


def _gradient(task: Task, state: State, batch: Batch, learns: bool) -> tuple[Output, dict[str, torch.Tensor]]:
    """Return the network's output for a batch and the parts of its loss, and give the parameters their gradient."""
    network, method = state.network, state.method
    needs, count = method.needs(), task.schedule.accumulate if learns else 1
    parts_of_batch = needs.branches if needs.partition_batch else 1
    batches = micro_batches.split(batch.images, count, parts_of_batch) if count > 1 else [batch.images]
    if len(batches) > 1:
        one = partial(forward, network, precision=task.schedule.precision)
        return micro_batches.backward(network, one, batches, lambda out: method.loss(out, batch))
    out = forward(network, batch.images, task.schedule.precision)
    parts = method.loss(out, batch)
    if learns:
        parts["loss"].backward()
    return out, parts


def _make_batch(
    task: Task, state: State, rows: torch.Tensor, pixels: torch.Tensor, generator: torch.Generator
) -> Batch:
    """Return the augmented and normalised images of a stream with their labels."""
    augment = state.augment.after_crop() if _takes_boxes(task, state) else state.augment
    images = augment_batch(pixels, augment, generator, task.model.image)
    return Batch(task.normalise(images), task.train.labels[rows], rows)


def forward(network: Network, images: torch.Tensor, precision: str) -> Output:
    """Run the network in `precision` ("fp32" or "bf16"); the output is float32 in both cases."""
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        out = network(images)
    return Output(out.features.float(), out.logits.float(), None if out.experts is None else out.experts.float())


def _add_sums(totals: dict[str, torch.Tensor], more: dict[str, Any]) -> None:
    """Add the sums of a step to those of the epoch, in float64 and in place."""
    for name, value in more.items():
        totals[name] = totals.get(name, 0.0) + torch.as_tensor(value, dtype=torch.float64)


@torch.no_grad()
def _embed(task: Task, state: State, split: str) -> Iterator[Embedding]:
    """Yield the network's features and logits in chunks, in eval mode; `split` as in the interface's Embed."""
    state.network.eval()
    for batch in _drawn_anew(task, state) if split == "stream" else _as_they_are(task, getattr(task, split)):
        out = forward(state.network, batch.images, task.schedule.precision)
        yield Embedding(out.features, out.logits, batch.labels, batch.index)


def _as_they_are(task: Task, images: SplitImages) -> Iterator[Batch]:
    """Yield a split in its order, without augmentation, in chunks."""
    for pixels, labels, index in images.chunks(CHUNK):
        yield Batch(task.normalise(pixels), labels, index)


def _drawn_anew(task: Task, state: State) -> Iterator[Batch]:
    """Yield the epoch's streams, one after the other, with the phase's augmentation, in chunks.

    Rows and augmentation are not those that the epoch trains on, but a second draw of its own.
    """
    orders = _draw_orders(task, state, state.method.streams(), "embedded order")
    chunks = [[rows] for order in orders for rows in order.split(CHUNK)]
    for number, (rows,), (pixels,) in _prefetch(task, state, chunks, 0, "embedded"):
        generator = determinism.generator(task.device, task.seed, state.phase, state.epoch, number, "embedded augment")
        yield _make_batch(task, state, rows, pixels, generator)


def _end_epoch(task: Task, state: State, lr: float, speed: float) -> None:
    """Validate, and append the epoch's row to the log. Raises Diverged if a loss is not finite."""
    count = state.sums["count"]
    parts = {name: value / count for name, value in state.sums.items() if name not in ("count", "right")}
    for name, value in parts.items():
        if value != value or abs(value) == float("inf"):  # only NaN differs from itself
            where = f"epoch {state.method.clock.epoch + 1} of phase {state.phase + 1}"
            raise Diverged(f"{task.name}: {name} is {value} in {where}; lower lr, or lengthen warmup")
    row = {"epoch": state.method.clock.epoch + 1, "phase": state.phase + 1, "lr": lr, **parts}
    row |= {"train_accuracy": 100 * state.sums["right"] / count, **_validate(task, state)}
    state.history.append(row)
    shown = " ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("epoch", "phase"))
    log.info("%s epoch %d: %s (%.0f images/s)", task.name, row["epoch"], shown, speed)


@torch.no_grad()
def _validate(task: Task, state: State) -> dict[str, float]:
    """Return the accuracy on the validation split in percent, of all images and by group; empty groups are left out."""
    state.network.eval()
    correct = torch.cat(list(_correct_predictions(task, state)))
    result = {"val_accuracy": 100 * correct.double().mean().item()}
    for number, group in enumerate(GROUPS):
        member = task.val.groups == number
        if member.any():
            result[f"val_{group}"] = 100 * correct[member].double().mean().item()
    return result


def _correct_predictions(task: Task, state: State) -> Iterator[torch.Tensor]:
    """Yield whether the prediction is correct, for each validation image, in chunks; bool."""
    for pixels, labels, _ in task.val.chunks(CHUNK):
        out = forward(state.network, task.normalise(pixels), task.schedule.precision)
        yield state.method.predict(out).argmax(dim=1) == labels


def _save(
    task: Task, state: State, optimizer: optimiser.SGD | None, epoch: int, step: int, totals: dict[str, torch.Tensor]
) -> None:
    """Write a resume point from which training continues with `step` of `epoch`."""
    state.unsaved = 0
    checkpoint.save_resume(
        task.resume,
        {
            "fingerprint": task.fingerprint,
            "phase": state.phase,
            "epoch": epoch,
            "step": step,
            "weights": state.network.state_dict(),
            "optimiser": optimizer.state_dict() if optimizer else {},
            "rng": determinism.rng_state(task.device),
            "history": state.history,
            "sums": {name: float(value) for name, value in totals.items()},
            "seconds": time.perf_counter() - state.began,
        },
    )


def _restore(task: Task, state: State, optimizer: optimiser.SGD | None, saved: dict[str, Any]) -> None:
    """Put everything back to the resume point `saved`, except the position."""
    state.network.load_state_dict(saved["weights"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimiser"])
    determinism.restore_rng(saved["rng"], task.device)
    state.history, state.sums = list(saved["history"]), dict(saved["sums"])
    state.began -= saved["seconds"]
