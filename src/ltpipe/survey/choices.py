"""What `ltpipe init` chooses for a user's pictures, each choice by one rule, and only by what the pictures are.

size        the largest of 16, 32, 64, 112 and 224 that is not larger than the median of the shorter sides, so that at
            most half of the pictures are enlarged. Without a GPU at most 64: larger squares would train for days.
network     for 16 pixels the small CNN; for 32, and for 64 without a GPU, CIFAR's ResNet-32; for 64 and more ResNet-18,
            with the stem that its own options recommend for the size
crop        random crops from a margin of an eighth of the size: 4 pixels of 32 as for CIFAR, 8 of 64
batch       the largest of 16, 32, 64 and 128 with at least 20 steps an epoch (16 if there is none)
lr          0.1 for a batch of 128, and in proportion to the batch (Goyal et al., arXiv:1706.02677)
epochs      so many that there are about 3,000 steps, at least 60 and at most 100
groups      many > 100, medium 20 to 100, few < 20 training pictures (Kang et al., ICLR 2020), if each group then has a
            class; else thirds by rank, the last of which may be larger. Of two classes, the larger one is many and the
            smaller one few.
gate        recall of the few gates beside that of all classes if the few have at least 50 test pictures: of fewer, one
            picture is more than two points, and `accept` would refuse a gate that sees nothing
mean, std   measured on up to 1,000 training pictures, spread evenly over them

With --backbone, a network of timm with weights: its own image, mean and std, squares of 8/7 of its image, as ImageNet's
evaluation leaves room to crop, and the schedule of finetune_folder. Without a GPU the heads alone: all weights would
train for hours.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ltpipe.config.spec import parse
from ltpipe.models.model import Model
from ltpipe.storage.manifest import Groups

SIZES = (16, 32, 64, 112, 224)
LARGEST_WITHOUT_GPU = 64
BATCHES = (128, 64, 32, 16)
STEPS_AN_EPOCH = 20
STEPS = 3000
EPOCHS = (60, 100)
GATED = 50  # test pictures of the few
FINETUNE = "finetune_folder"
HEADS = ["head", "head_adjusted"]  # its runs that take one pass over the pictures
SAMPLE = 1000  # pictures of which mean and std are measured


def choose_size(sizes: np.ndarray, gpu: bool) -> int:
    """Return the height and width of the squares; sizes: width and height of the pictures, N x 2."""
    median = float(np.median(sizes.min(axis=1)))
    fitting = [size for size in SIZES if size <= median and (gpu or size <= LARGEST_WITHOUT_GPU)]
    return max(fitting, default=SIZES[0])


def choose_network(size: int, gpu: bool) -> dict[str, Any]:
    """Return backbone and options for squares of `size` pixels."""
    if size <= 16:
        return {"backbone": "cnn", "options": {"width": 16}}
    if size <= 32 or (size <= 64 and not gpu):
        return {"backbone": "resnet32"}
    return {"backbone": "resnet", "options": {"depth": 18, "stem": "small" if size <= 64 else "large"}}


def choose_pretrained(network: Mapping[str, Any], gpu: bool) -> dict[str, Any]:
    """Return the blocks like, source and model for a network of timm; network: its options.

    Raises Refused if timm has no such network, or if its weights are not stated completely.
    """
    model = parse(Model, {"backbone": "timm", "options": dict(network)}, "--backbone")
    return {
        "like": {"benchmark": FINETUNE} | ({} if gpu else {"runs": HEADS}),
        "source": {"size": -(-model.image * 8 // 7)},
        "model": {key: model.model_dump(mode="json")[key] for key in ("backbone", "options", "image", "mean", "std")},
    }


def choose_schedule(images: int, size: int) -> dict[str, Any]:
    """Return epochs, batch, learning rate and crop for so many training images."""
    batch = next((batch for batch in BATCHES if images >= batch * STEPS_AN_EPOCH), BATCHES[-1])
    epochs = int(np.clip(round(STEPS * batch / images), *EPOCHS))
    return {"epochs": epochs, "batch": batch, "lr": 0.1 * batch / 128, "augment": {"crop": size // 8}}


def choose_groups(counts: Sequence[int]) -> Groups:
    """Return the rule of the groups; counts: training images of each class, C."""
    usual = Groups(by="count", many=100, medium=20)
    if len(set(usual.of_classes(np.array(counts)))) == 3:
        return usual
    classes = len(counts)
    limit = max(counts) - 1
    if classes == 2 and min(counts) < limit:
        return Groups(by="count", many=limit, medium=limit)
    many = max(classes // 3, 1)
    return Groups(by="rank", many=many, medium=max((classes - many) // 2, 1))


def choose_gate(test: Sequence[int], groups: Sequence[str]) -> dict[str, Any]:
    """Return what differs from the template's gate. test, groups: test images and group of each class, C."""
    few = sum(images for images, group in zip(test, groups, strict=True) if group == "few")
    return {} if few >= GATED else {"gate": {"metrics": []}}


def spread(rows: np.ndarray, count: int) -> np.ndarray:
    """Return up to `count` of the rows, evenly spread over them."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]


def measure_pixels(squares: np.ndarray) -> dict[str, list[float]]:
    """Return mean and std of each channel, pixels in 0..1, three digits. squares: uint8, N x H x W x 3."""
    pixels = squares.reshape(-1, 3) / 255
    # a std of 0, of pictures without any structure, cannot be divided by
    std = np.maximum(pixels.std(axis=0), 0.001)
    return {"mean": pixels.mean(axis=0).round(3).tolist(), "std": std.round(3).tolist()}
