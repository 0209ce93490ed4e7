"""The memory of a training step on the device, computed from the network itself: what a card must hold.

    python benchmarks/step_memory.py [BENCHMARK ...]

For the runs `ce`, `ride` and `ride_ifl` of the large benchmarks, with batch, precision and image size of their files.
Network and loss run on the CPU with 2 and with 4 images; torch's hooks name every tensor that is saved for backward,
each storage once. The bytes are exactly linear in the images, so two sizes give those of any batch.

    saved      saved for backward, for a micro-batch of batch / accumulate images, with the copies of the weights that
               autocast makes
    batch      pixels as uint8, and twice as float32: normalised images, and the micro-batch made of them
    weights    parameters, their gradients, their momentum (not if it is 0), and the buffers
    resident   pixels that schedule.resident holds on the device
    total      their sum: the peak, but for what is not counted: CUDA itself, workspaces of cuDNN, gaps of torch's
               allocator, and gradients of activations (few while all is saved, as backward begins at the smallest ones)
    accumulate_24   the smallest schedule.accumulate of 1, 2, 4, ... that leaves 3 GiB of 24 for what is not counted

No step was taken on a GPU for these figures. Writes benchmarks/results/step_memory.json.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from ltpipe.benchmark import Benchmark, load
from ltpipe.interface.streams import Batch, Problem
from ltpipe.models.network import Network
from ltpipe.recipe.run import Run, build_network
from ltpipe.recipe.schedule import Schedule
from ltpipe.training import loop

ROOT = Path(__file__).parents[1]
BENCHMARKS = ("imagenet_lt", "imagenet_glt", "inaturalist2018", "places_lt", "mscoco_glt")
RUNS = ("ce", "ride", "ride_ifl")
GIB = 2**30
CARD, MARGIN = 24 * GIB, 3 * GIB


@dataclass(frozen=True)
class Step:
    """A run of a benchmark, before its first step."""

    spec: Benchmark
    run: Run
    schedule: Schedule
    classes: int

    @classmethod
    def of(cls, spec: Benchmark, name: str) -> "Step":
        """Return the step of a run."""
        run = spec.runs[name].train
        return cls(spec, run, spec.schedule.with_changes(run.schedule), spec.expect.classes)

    def build(self) -> tuple[Network, Any]:
        """Return network and method in training mode; two images of each class stand for the training split."""
        problem = Problem(np.repeat(np.arange(self.classes), 2), self.classes)
        network, method = build_network(self.run, self.spec.model, problem)
        method.clock.epochs = self.schedule.epochs
        return network.to(memory_format=torch.channels_last).train(), method

    def batch(self, images: int) -> Batch:
        """Return a batch of noise."""
        side = self.spec.model.image
        pixels = torch.randn(images, 3, side, side).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(images) % self.classes
        return Batch(pixels, labels, labels)


class Saved:
    """Counts the bytes that are saved for backward, each storage once, without those of the network and the images."""

    def __init__(self, network: Network, images: torch.Tensor) -> None:
        given = [*network.parameters(), *network.buffers(), images]
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.kept: dict[int, torch.Tensor] = {}  # keeps the tensors, so that no address is used twice

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        """Note a tensor that is saved."""
        if tensor.untyped_storage().data_ptr() not in self.given:
            self.kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def bytes(self) -> int:
        """Return the bytes of all storages."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self.kept.values())


def saved_bytes(step: Step, network: Network, method: Any, images: int) -> int:
    """Return the bytes that forward and loss of a batch save for backward."""
    batch = step.batch(images)
    saved = Saved(network, batch.images)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        method.loss(loop.forward(network, batch.images, step.schedule.precision), batch)
    return saved.bytes()


def resident_bytes(step: Step) -> int:
    """Return the bytes of the splits that are held on the device; a split of unstated size counts as large.

    Whole pictures are read by worker processes, and the training split's squares then only between epochs.
    """
    limit, used = step.schedule.resident * 1e9, 0.0
    for split in (step.run.split, "val") if step.spec.source.pictures == "squares" else ("val",):
        stated: Any = step.spec.expect.class_counts.get(split)
        total = stated.total if hasattr(stated, "total") else sum(stated) if stated is not None else None
        size = float("inf") if total is None else total * 3 * step.spec.source.size**2
        if used + size > limit:
            break
        used += size
    return int(used)


def compute(step: Step) -> dict[str, Any]:
    """Return the figures of a run, in bytes."""
    network, method = step.build()
    low, high = (saved_bytes(step, network, method, images) for images in (2, 4))
    each, fixed = (high - low) / 2, low - (high - low)
    parameters = sum(value.nbytes for value in network.parameters())
    copies = 3 if step.schedule.momentum else 2  # values, gradients, momentum
    buffers = sum(value.nbytes for value in network.buffers())
    side, packed, batch = step.spec.model.image, step.spec.source.size, step.schedule.batch
    fix = {
        "weights": copies * parameters + buffers,
        "batch": batch * (3 * packed**2 + 2 * 4 * 3 * side**2),
        "resident": resident_bytes(step),
    }

    def total(count: int) -> float:
        return sum(fix.values()) + fixed + each * -(-batch // count)

    counts = [2**power for power in range(10) if batch // 2**power >= 2]
    count = step.schedule.accumulate
    return {
        "images": {"batch": batch, "accumulate": count, "side": side, "precision": step.schedule.precision},
        "saved_per_image": each,
        "saved": fixed + each * -(-batch // count),
        **fix,
        "total": total(count),
        "total_gib": round(total(count) / GIB, 1),
        "total_gib_by_accumulate": {str(count): round(total(count) / GIB, 1) for count in counts[:5]},
        "accumulate_24": next((count for count in counts if total(count) <= CARD - MARGIN), None),
    }


@click.command()
@click.argument("names", nargs=-1)
def main(names: tuple[str, ...]) -> None:
    """Compute the memory of each run, print it, and write it to a file."""
    path = ROOT / "benchmarks/results/step_memory.json"
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    result |= {"torch": torch.__version__, "unit": "bytes; *_gib: GiB"}
    for name, spec in load(ROOT / "conf/base", names or BENCHMARKS).items():
        for run in (run for run in RUNS if run in spec.runs):
            step = Step.of(spec, run)
            figures = compute(step)
            result.setdefault("runs", {}).setdefault(name, {})[run] = figures
            by_count = ", ".join(f"{count}: {gib}" for count, gib in figures["total_gib_by_accumulate"].items())
            print(f"{name}.{run}: GiB by accumulate {by_count}; on 24 GiB accumulate {figures['accumulate_24']}")
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
