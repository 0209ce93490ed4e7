"""Images/s of ResNet-32 at batch 128 on 32 x 32 images: the usual way to train beside ours, in the same run.

    uv run python benchmarks/train_speed.py [--device cuda] [--images 12800] [--repeats 5]

usual   PIL transforms on each sample (pad 4, random crop, flip, normalise) in a DataLoader with workers, fp32
ours    images on the device as uint8, augmented there batch by batch, channels last; fp32, and bf16 on CUDA

They take turns within each repeat, so that changes of the machine's speed affect all of them. The first repeat warms
up and is not counted. Writes benchmarks/results/train_speed_<device>.json.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ltpipe.interface.phases import Augment
from ltpipe.interface.streams import Problem, Stream
from ltpipe.models.model import Model
from ltpipe.models.pixels import channel_scale, normalise
from ltpipe.recipe.run import Run, build_network
from ltpipe.training.augment.batch import augment_batch
from ltpipe.training.determinism import generator
from ltpipe.training.loop import forward
from ltpipe.training.samplers import draw_order, split_into_steps

BATCH, SIZE, CLASSES = 128, 32, 100
MODEL = Model(backbone="resnet32", image=SIZE)
AUGMENT = Augment(crop=4, flip=True)
Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


class Samples(torch.utils.data.Dataset):
    """PIL images with the transforms of the CIFAR recipe, sample by sample."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        from PIL import Image
        from torchvision import transforms

        self.images = [Image.fromarray(image) for image in pixels]
        self.labels = labels
        steps = [transforms.RandomCrop(SIZE, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(MODEL.mean, MODEL.std)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[i]), int(self.labels[i])


def usual_batches(data: Samples, device: torch.device, workers: int) -> Batches:
    """Yield batches as most public code makes them."""
    loader = torch.utils.data.DataLoader(
        data, BATCH, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda", drop_last=True
    )
    for images, labels in loader:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def our_batches(pixels: torch.Tensor, labels: torch.Tensor, repeat: int) -> Batches:
    """Yield batches as the training loop makes them."""
    device = pixels.device
    mean, std = channel_scale(MODEL.mean, device), channel_scale(MODEL.std, device)
    order = draw_order(Stream(), labels.cpu(), generator(torch.device("cpu"), repeat)).to(device)
    for step, (rows,) in enumerate(split_into_steps((Stream(),), [order], BATCH)):
        augmented = augment_batch(pixels[rows], AUGMENT, generator(device, repeat, step), SIZE)
        yield normalise(augmented, SIZE, mean, std), labels[rows]


def train_epoch(batches: Batches, device: torch.device, precision: str, channels_last: bool) -> float:
    """Train a new network for an epoch by SGD, and return images/s, data loading included."""
    torch.manual_seed(0)
    network, _ = build_network(Run(method="ce", split="train"), MODEL, Problem(np.arange(CLASSES), CLASSES))
    network = network.to(device)
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    count, began = 0, time.perf_counter()
    for images, labels in batches:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(forward(network, images, precision).logits, labels).backward()
        optimizer.step()
        count += len(labels)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure the speeds, print them, and write them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--images", type=int, default=0, help="images of an epoch; default 51,200 on CUDA, 2,560 elsewhere"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    count = arguments.images or (51_200 if device.type == "cuda" else 2_560)
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)
    labels = random.randint(0, CLASSES, count)
    data = Samples(pixels, labels)
    resident = torch.tensor(pixels, device=device), torch.tensor(labels, device=device)
    ways = {"usual fp32": ("fp32", False), "ours fp32": ("fp32", True)}
    if device.type == "cuda":
        ways["ours bf16"] = ("bf16", True)
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(arguments.repeats + 1):
        for name, (precision, ours) in ways.items():
            batches = our_batches(*resident, repeat) if ours else usual_batches(data, device, arguments.workers)
            speed = train_epoch(batches, device, precision, channels_last=ours)
            if repeat:
                speeds[name].append(speed)
    result = {
        "what": "images/s, ResNet-32, batch 128, 32 x 32, SGD, data loading included",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "images": count,
        "workers": arguments.workers,
        "n": arguments.repeats,
        "images_per_second": {
            name: {"median": statistics.median(v), "min": min(v), "max": max(v)} for name, v in speeds.items()
        },
    }
    base = result["images_per_second"]["usual fp32"]["median"]
    for name, speed in result["images_per_second"].items():
        print(
            f"{name:12} {speed['median']:10.0f} images/s (n {arguments.repeats}), {speed['median'] / base:.2f} x usual"
        )
    path = Path(__file__).parent / "results" / f"train_speed_{device.type}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
