"""Images/s of ResNet-32 at batch 128 on 32 x 32 images: the usual recipe beside ours, in one run.

    uv run python benchmarks/train_speed.py [--device cuda] [--images 12800] [--repeats 5]

usual   PIL transforms on each sample (pad 4, random crop, flip, normalise) in a DataLoader with workers, fp32
ours    images resident on the device as uint8, batched augmentation there, channels last; fp32, and bf16 on CUDA

The two take turns within each repeat, so that a machine's drifting speed falls on both; the first repeat warms up and
is not counted. Writes benchmarks/results/train_speed_<device>.json.
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
from ltpipe.recipe.run import Run, build
from ltpipe.training.determinism import generator
from ltpipe.training.images import augmented, normalise
from ltpipe.training.loop import forward
from ltpipe.training.samplers import batches, order

BATCH, SIZE, CLASSES = 128, 32, 100
MODEL = Model(backbone="resnet32", image=SIZE)


class Samples(torch.utils.data.Dataset):
    """PIL images and the transforms of the CIFAR recipe, one sample at a time."""

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


def usual(data: Samples, device: torch.device, workers: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches as most public code makes them."""
    loader = torch.utils.data.DataLoader(
        data, BATCH, shuffle=True, num_workers=workers, pin_memory=device.type == "cuda", drop_last=True
    )
    for images, labels in loader:
        yield images.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def ours(pixels: torch.Tensor, labels: torch.Tensor, repeat: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches as the loop makes them."""
    device = pixels.device
    rows = order(Stream(), labels.cpu(), generator(torch.device("cpu"), repeat)).to(device)
    for step, (chosen,) in enumerate(batches((Stream(),), [rows], BATCH)):
        drawn = augmented(pixels[chosen], Augment(crop=4, flip=True), generator(device, repeat, step), MODEL.image)
        yield normalise(drawn, MODEL), labels[chosen]


def epoch(
    stream: Iterator[tuple[torch.Tensor, torch.Tensor]], device: torch.device, precision: str, fast: bool
) -> float:
    """Images/s of one epoch of SGD on a fresh network, data loading included."""
    torch.manual_seed(0)
    network, _ = build(Run(method="ce", split="train"), MODEL, Problem(np.arange(CLASSES), CLASSES))
    network = network.to(device)
    if fast:
        network = network.to(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    count, began = 0, time.perf_counter()
    for images, labels in stream:
        sgd.zero_grad(set_to_none=True)
        F.cross_entropy(forward(network, images, precision).logits, labels).backward()
        sgd.step()
        count += len(labels)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--images", type=int, default=0, help="images an epoch; default 51,200 on CUDA, 2,560 elsewhere"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    asked = parser.parse_args()
    device = torch.device(asked.device)
    count = asked.images or (51_200 if device.type == "cuda" else 2_560)
    random = np.random.RandomState(0)
    pixels = random.randint(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)
    labels = random.randint(0, CLASSES, count)
    data = Samples(pixels, labels)
    resident = torch.tensor(pixels, device=device), torch.tensor(labels, device=device)
    recipes = {"usual fp32": ("fp32", False), "ours fp32": ("fp32", True)}
    if device.type == "cuda":
        recipes["ours bf16"] = ("bf16", True)
    speeds: dict[str, list[float]] = {name: [] for name in recipes}
    for repeat in range(asked.repeats + 1):
        for name, (precision, fast) in recipes.items():
            stream = ours(*resident, repeat) if fast else usual(data, device, asked.workers)
            speed = epoch(stream, device, precision, fast)
            if repeat:
                speeds[name].append(speed)
    result = {
        "what": "images/s, ResNet-32, batch 128, 32 x 32, SGD, data loading included",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "images": count,
        "workers": asked.workers,
        "n": asked.repeats,
        "images_per_second": {
            name: {"median": statistics.median(v), "min": min(v), "max": max(v)} for name, v in speeds.items()
        },
    }
    base = result["images_per_second"]["usual fp32"]["median"]
    for name, found in result["images_per_second"].items():
        print(f"{name:12} {found['median']:10.0f} images/s (n {asked.repeats}), {found['median'] / base:.2f} x usual")
    path = Path(__file__).parent / "results" / f"train_speed_{device.type}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
