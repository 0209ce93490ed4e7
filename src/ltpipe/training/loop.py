"""The training loop for every method. Methods change it only through hooks; it contains no method's name.

The order of an epoch and the augmentation of a step are drawn by generators that are functions of the seed and of the
position (phase, epoch, step), so they need not be saved. A resume point holds the position, the weights, the optimiser,
the state of the global generators and the log: a resumed run equals an uninterrupted one bit for bit.

What is on the device is read only at a look, every few steps: reading at each step would wait for all queued work.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import torch
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
from ltpipe.training.average import Average
from ltpipe.training.cost import Meter
from ltpipe.training.images import SplitImages
from ltpipe.training.pictures import Pictures
from ltpipe.training.progress import Progress
from ltpipe.training.scratch import remove_unfinished
from ltpipe.training.signals import Signals

log = logging.getLogger("ltpipe.training")
CHUNK = 512  # images of one forward pass without gradients


@dataclass(frozen=True)
class Task:
    """Everything that a training run needs.

    name: for messages. fingerprint: identifies code, data and parameters; a resume point of another one is not used.
    resume: path of the resume point, which stays there when the training has ended. start: weights of the finished run
    that this run starts from, if any. pretrained: file of the weights that its backbone starts from, if any. pictures:
    where random boxes are taken from, if not from the packed squares of `train`. signals: say whether the training is
    to stop.
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
    pretrained: Path | None = None
    pictures: Pictures | None = None
    signals: Signals = field(default_factory=Signals)

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
    progress: Progress
    cost: Meter
    average: Average | None = None
    phase: int = 0
    epoch: int = 0  # within the phase, from 0
    augment: Augment = field(default_factory=Augment)
    unsaved: int = 0  # steps since the last resume point
    saved: float = field(default_factory=time.monotonic)  # when it was written
    kept: str = "none"  # what it holds
    unseen: list[dict[str, Any]] = field(default_factory=list)  # sums of the steps since the last look
    history: list[dict[str, Any]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)  # of losses and counts, over the steps of this epoch


@dataclass(frozen=True)
class Position:
    """Where a resumed training goes on, and the optimiser of that phase. phase, epoch in it, step: from 0."""

    phase: int
    epoch: int
    step: int
    optimizer: optimiser.Optimiser | None


class Diverged(Refused):
    """A loss or a weight is not a finite number."""

    exit_code = 4


def fit(task: Task) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """Train to the end, from the resume point if there is one.

    Returns the weights (with `schedule.ema`, their average), a log row for each epoch, the facts that the method's
    `finish` returned, and what it cost (`Meter.total`), with what the processes cost that wrote the resume points.
    Raises Stopped, after it has written a resume point, if `task.signals` received one.
    """
    with determinism.cpu_threads(task.schedule.threads), logging_redirect_tqdm():
        return _fit(task)


def _fit(task: Task) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    remove_unfinished(task.resume.parent)
    state, phases, position = _begin(task)
    try:
        for number in range(position.phase if position else 0, len(phases)):
            _run_phase(task, state, phases, number, position)
            position = None  # only for the first phase that runs
    finally:
        state.progress.close()
    if state.average is not None:
        state.average.give()
    state.network.eval()
    state.method.clock.epoch = state.method.clock.epochs
    facts = state.method.finish(state.network, lambda split: _embed(task, state, split))
    _require_finite_weights(task, state)
    return state.network.state_dict(), state.history, facts, state.cost.total()


def _begin(task: Task) -> tuple[State, tuple[Phase, ...], Position | None]:
    """Return the state and the phases, and where to go on: at the newest resume point that can be used, if there is."""
    unusable = []
    for saved, why in checkpoint.usable(task.resume, task.fingerprint):
        if saved is None:
            unusable.append(why)
            continue
        state, phases = _from_the_start(task)
        try:
            position = _restore(task, state, phases, saved)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:  # what a wrong value raises
            unusable.append(f"{task.resume} is no resume point of this training ({shorten(str(error), 200)})")
            continue
        if unusable:
            log.warning("%s: %s; going on from the resume point before it", task.name, unusable[0])
        log.info("%s: %s on %s, resuming after %s", task.name, task.run.method, task.device, state.kept)
        return state, phases, position
    if unusable:
        log.warning("%s: %s, starting over", task.name, unusable[0])
    state, phases = _from_the_start(task)
    begun = "from the start" if task.start is None else f"from the weights of {task.run.start_from}"
    log.info("%s: %s on %s, %s%s", task.name, task.run.method, task.device, begun, "" if phases else ", no training")
    return state, phases, None


def _from_the_start(task: Task) -> tuple[State, tuple[Phase, ...]]:
    """Return the state before training, and the phases."""
    determinism.fix(task.seed)
    state = _initial_state(task)
    phases = state.method.phases(task.schedule.phase())
    state.method.clock.epochs = sum(phase.epochs for phase in phases)
    return state, phases


def _initial_state(task: Task) -> State:
    """Build network and method, take the weights of the run that this one starts from, and move them to the device."""
    task.schedule.require_method(task.run, task.classes)
    problem = Problem(task.train.labels.cpu().numpy(), task.classes, label_smoothing=task.schedule.label_smoothing)
    network, method = build_network(task.run, task.model, problem)
    for part in network.backbone.modules():
        if isinstance(part, Branches):
            part.partition_batch = method.needs().partition_batch
    if task.schedule.accumulate > 1 and (drawing := micro_batches.draws_numbers(network)):
        raise Refused(f"{task.name}: schedule.accumulate passes images twice, and {drawing} draws anew: state 1")
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
    elif task.pretrained is not None:
        model = task.model.with_changes(task.run.model)
        if unlike := model.unlike_pretraining():
            log.warning("%s: the weights were trained on images of another scale: %s", task.name, "; ".join(unlike))
        network.backbone.load_state_dict(model.load_weights(task.pretrained, method.needs().branches))
    network.to(task.device).to(memory_format=torch.channels_last)  # the layout of the batches that `normalise` returns
    decay = task.schedule.ema
    if decay is not None:
        log.info("%s: validated and exported are averages of the weights (ema %g)", task.name, decay)
    average = None if decay is None else Average(network, decay)
    return State(network, method, Progress(task.name), Meter(task.device), average)


def _run_phase(
    task: Task, state: State, phases: tuple[Phase, ...], number: int, position: Position | None = None
) -> None:
    """Train phase `number` with an optimiser of its own, from `position` on, if training goes on inside it."""
    phase = phases[number]
    first = position or Position(number, 0, 0, optimiser.build(state.network, state.method, phase, task.schedule))
    for epoch in range(first.epoch, phase.epochs):
        _go_to(state, phases, number, epoch)
        _run_epoch(task, state, phase, first.optimizer, first.step if epoch == first.epoch else 0)


def _go_to(state: State, phases: tuple[Phase, ...], number: int, epoch: int) -> None:
    """Set the state to an epoch of phase `number`."""
    state.phase, state.epoch, state.augment = number, epoch, phases[number].augment
    state.method.clock.phase = number
    state.method.clock.epoch = sum(phase.epochs for phase in phases[:number]) + epoch


def _run_epoch(task: Task, state: State, phase: Phase, optimizer: optimiser.Optimiser | None, first_step: int) -> None:
    """Train an epoch from `first_step` on, validate, and write resume points on the way."""
    state.cost.begin_epoch()
    if first_step == 0:  # not if the epoch is resumed: the resume point has the buffers that begin_epoch wrote
        state.sums = {}
        state.network.eval()
        state.method.begin_epoch(lambda split: _embed(task, state, split))
    optimiser.set_modes(state.network, phase)
    seen, steps = state.cost.images, _draw_steps(task, state)
    # Sums stay on the device until the epoch ends: reading one would wait for all queued work.
    totals = {name: torch.tensor(value, device=task.device, dtype=torch.float64) for name, value in state.sums.items()}
    clock = state.method.clock
    state.progress.begin_epoch(clock.epoch, clock.epochs, len(steps), first_step)
    for step, rows, pixels in _prefetch(task, state, steps, first_step):
        if optimizer is not None:
            optimizer.set_lr(optimiser.learning_rate(phase, state.epoch, step, len(steps)))
        sums = _train_step(task, state, optimizer, rows, pixels, step)
        state.cost.images += sum(map(len, rows))
        _add_sums(totals, sums)
        state.unseen.append(sums)
        state.unsaved += 1
        if state.progress.step():
            _look(task, state, step + 1, len(steps))
            state.progress.looked()
        if task.signals.received or (_is_due(task, state) and step + 1 < len(steps)):  # after the last step, see below
            _look(task, state, step + 1, len(steps))
            _save(task, state, optimizer, (state.epoch, step + 1, len(steps)), totals)
    _look(task, state, len(steps), len(steps))
    state.sums = {name: float(value) for name, value in totals.items()}
    lr = optimiser.learning_rate(phase, state.epoch, len(steps) - 1, len(steps))
    _end_epoch(task, state, lr, (state.cost.images - seen) / max(state.cost.end_epoch(), 1e-9))
    if task.signals.received or _is_due(task, state):  # with the log row of this epoch, hence after the validation
        _save(task, state, optimizer, (state.epoch + 1, 0, len(steps)), {})


def _is_due(task: Task, state: State) -> bool:
    """Tell whether it is time for a resume point, by the steps or by the minutes since the last one."""
    steps, minutes = task.schedule.save_every, task.schedule.save_minutes
    by_time = minutes is not None and time.monotonic() - state.saved >= 60 * minutes
    return by_time or (steps is not None and state.unsaved >= steps)


def _look(task: Task, state: State, step: int, steps: int) -> None:
    """Read the losses of the steps since the last look. Raises Diverged if one is not finite.

    step: number of steps of the epoch that were taken, of `steps`.
    """
    first, unseen, state.unseen = step - len(state.unseen) + 1, state.unseen, []
    if not unseen:
        return
    parts = [(n, name) for n, sums in enumerate(unseen) for name in sums if name not in ("count", "right")]
    values = torch.stack([unseen[n][name].double() / unseen[n]["count"] for n, name in parts]).tolist()
    for (n, name), value in zip(parts, values, strict=True):
        if not math.isfinite(value):
            where = _place(state, first + n, steps)
            raise Diverged(f"{task.name}: {name} is {value} in {where}; {_remedy(task, state)}")


def _require_finite_weights(task: Task, state: State) -> None:
    """Raise Diverged if a parameter is not finite: the gradient of a finite loss may not be."""
    parameters = dict(state.network.named_parameters())
    if not parameters:
        return
    finite = torch.stack([value.isfinite().all() for value in parameters.values()]).tolist()
    wrong = [name for name, is_finite in zip(parameters, finite, strict=True) if not is_finite]
    if wrong:
        where = f"epoch {min(state.method.clock.epoch + 1, state.method.clock.epochs)}"
        raise Diverged(f"{task.name}: weights of {wrong[0]} are not finite in {where}; {_remedy(task, state)}")


def _place(state: State, step: int, steps: int) -> str:
    """Return a step of the current epoch in words."""
    clock = state.method.clock
    return f"epoch {clock.epoch + 1} of {clock.epochs}, step {step} of {steps}"


def _remedy(task: Task, state: State) -> str:
    where = f" ({task.resume})" if state.kept != "none" else ""
    return f"lower lr, or lengthen warmup; last good resume point: {state.kept}{where}"


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
    optimizer: optimiser.Optimiser | None,
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
        optimizer.step(partial(_gradient_again, task, state, batch))
    detached = Output(out.features.detach(), out.logits.detach(), None if out.experts is None else out.experts.detach())
    with torch.no_grad():
        state.method.after_step(detached, batch)
        if state.average is not None:  # after the method, which may change weights too
            state.average.update()
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


def _gradient_again(task: Task, state: State, batch: Batch) -> None:
    """Give the parameters their gradient at other values; buffers keep what the first pass wrote into them."""
    buffers = list(state.network.buffers())
    kept = [buffer.clone() for buffer in buffers]
    _gradient(task, state, batch, True)
    with torch.no_grad():
        for buffer, value in zip(buffers, kept, strict=True):
            buffer.copy_(value)


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
    """Validate, and append the epoch's row to the log."""
    count = state.sums["count"]
    parts = {name: value / count for name, value in state.sums.items() if name not in ("count", "right")}
    row = {"epoch": state.method.clock.epoch + 1, "phase": state.phase + 1, "lr": lr, **parts}
    row |= {"train_accuracy": 100 * state.sums["right"] / count, **_validate(task, state)}
    state.history.append(row)
    shown = " ".join(f"{k} {v:.4g}" for k, v in row.items() if k not in ("epoch", "phase"))
    log.info("%s epoch %d: %s (%.0f images/s)", task.name, row["epoch"], shown, speed)


@torch.no_grad()
def _validate(task: Task, state: State) -> dict[str, float]:
    """Return percentages of the validation split: accuracy, macro recall, and accuracy by group.

    Macro recall is the mean over the classes that have validation images. Empty groups are left out.
    """
    state.network.eval()
    with state.average.shown() if state.average is not None else nullcontext():
        correct = torch.cat(list(_correct_predictions(task, state)))
    result = {"val_accuracy": 100 * correct.double().mean().item()}
    result["val_macro_recall"] = 100 * macro_recall(task.val.labels.cpu().numpy(), correct.cpu().numpy())
    for number, group in enumerate(GROUPS):
        member = task.val.groups == number
        if member.any():
            result[f"val_{group}"] = 100 * correct[member].double().mean().item()
    return result


def macro_recall(labels: np.ndarray, correct: np.ndarray) -> float:
    """Return the mean over the classes of `labels` of the share of their images that are correct; both: N."""
    images = np.bincount(labels)
    right = np.bincount(labels[correct], minlength=len(images))
    return float(np.mean(right[images > 0] / images[images > 0]))


def _correct_predictions(task: Task, state: State) -> Iterator[torch.Tensor]:
    """Yield whether the prediction is correct, for each validation image, in chunks; bool."""
    for pixels, labels, _ in task.val.chunks(CHUNK):
        out = forward(state.network, task.normalise(pixels), task.schedule.precision)
        yield state.method.predict(out).argmax(dim=1) == labels


def _save(
    task: Task,
    state: State,
    optimizer: optimiser.Optimiser | None,
    to: tuple[int, int, int],
    totals: dict[str, torch.Tensor],
) -> None:
    """Write a resume point; raise Stopped after it, if that was asked for.

    to: epoch and step from which training will go on, and the number of steps of an epoch.
    """
    _require_finite_weights(task, state)
    epoch, step, steps = to
    kept = _place(state, step or steps, steps)
    checkpoint.save_resume(
        task.resume,
        {
            "fingerprint": task.fingerprint,
            "phase": state.phase,
            "epoch": epoch,
            "step": step,
            "kept": kept,
            "weights": state.network.state_dict(),
            "optimiser": optimizer.state_dict() if optimizer else {},
            "average": state.average.state_dict() if state.average else {},
            "rng": determinism.rng_state(task.device),
            "history": state.history,
            "sums": {name: float(value) for name, value in totals.items()},
            "cost": state.cost.total(),
        },
    )
    state.unsaved, state.saved, state.kept = 0, time.monotonic(), kept
    if task.signals.received:
        raise task.signals.stopped(task.name, f"{kept}, in {task.resume}")


def _restore(task: Task, state: State, phases: tuple[Phase, ...], saved: dict[str, Any]) -> Position:
    """Put everything back to the resume point `saved`, and return its position.

    Raises ValueError if it is outside of the training, and what torch raises if the values are not those of it.
    """
    number, epoch, step = saved["phase"], saved["epoch"], saved["step"]
    if not (0 <= number < len(phases) and 0 <= epoch <= phases[number].epochs):
        raise ValueError(f"it is of phase {number + 1}, epoch {epoch + 1}, which the training does not have")
    optimizer = optimiser.build(state.network, state.method, phases[number], task.schedule)
    state.network.load_state_dict(saved["weights"])
    if optimizer is not None:
        optimizer.load_state_dict(saved["optimiser"])
    if state.average is not None:
        state.average.load_state_dict(saved["average"])
    _go_to(state, phases, number, epoch)
    if step and not 0 < step <= len(_draw_steps(task, state)):
        raise ValueError(f"it is of step {step}, which the epoch does not have")
    determinism.restore_rng(saved["rng"], task.device)
    state.history, state.sums, state.kept = list(saved["history"]), dict(saved["sums"]), saved["kept"]
    state.cost.go_on(saved["cost"])
    return Position(number, epoch, step, optimizer)
