"""Is a number the recipe's or our code's? The product's `ce` beside a plain loop, on the same images and schedule.

    uv run python benchmarks/control.py data/05_model_input/cifar10_lt_jpeg [--epochs 20] [--seeds 2] [--arms ...]

control        an independent ResNet-32, torchvision's transforms on each image, torch.optim.SGD; nothing of ltpipe
product        ltpipe.training.train with the same schedule
recompressed   control on images that were compressed once more, as the files were: JPEG quality 75, chroma at half
               resolution, with the grid of blocks moved by 4 pixels. What it loses tells what one compression costs.

Each in fp32 and bf16, the last in bf16 only. The learning rate is 0.1 with 5 (2.5 %) epochs of warm-up, x0.1 at 80 and
x0.01 at 90 % of the epochs, as in the published 200 epochs (160 and 180). Test accuracies are added to
benchmarks/results/control.json one by one: the command can be killed and started again, and two with other arms can
run at once.
"""

import argparse
import io
import itertools
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torchvision
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

RESULTS = Path(__file__).parent / "results" / "control.json"
MEAN, STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.201]
WEIGHT_DECAY, BATCH, CLASSES = 1e-4, 128, 10
ARMS = ["control bf16", "product bf16", "recompressed bf16", "control fp32", "product fp32"]


class Block(nn.Module):
    """Basic block of He et al. (CVPR 2016) with their shortcut A."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride = outputs // inputs
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            zeros = torch.zeros_like(x[:, : x.shape[1] // 2, ::2, ::2])
            x = torch.cat([zeros, x[:, :, ::2, ::2], zeros], dim=1)
        return F.relu(x + y)


def resnet32() -> nn.Module:
    """Return ResNet-32 with a linear head, Kaiming initialisation."""
    widths = [16] * 6 + [32] * 5 + [64] * 5
    blocks = [Block(a, b) for a, b in itertools.pairwise(widths)]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    network = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return network


def control(train: list, test: list, epochs: int, seed: int, precision: str) -> float:
    """Return the test accuracy of the plain loop, in percent. train, test: (PIL image, label) pairs."""
    torch.manual_seed(seed)
    plain = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augment = transforms.Compose([transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *plain])
    network = resnet32()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=WEIGHT_DECAY)
    for epoch in range(epochs):
        factor = 0.01 if epoch >= 0.9 * epochs else 0.1 if epoch >= 0.8 * epochs else 1
        optimizer.param_groups[0]["lr"] = 0.1 * min(factor, (epoch + 1) / warmup(epochs))
        network.train()
        for rows in torch.randperm(len(train)).split(BATCH):
            images = torch.stack([augment(train[i][0]) for i in rows])
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = network(images)
            loss = F.cross_entropy(logits.float(), torch.tensor([train[i][1] for i in rows]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    steps = transforms.Compose(plain)
    right = 0
    with torch.no_grad():
        for start in range(0, len(test), 500):
            images = torch.stack([steps(image) for image, _ in test[start : start + 500]])
            labels = torch.tensor([label for _, label in test[start : start + 500]])
            right += int((network(images).argmax(1) == labels).sum())
    return 100 * right / len(test)


def warmup(epochs: int) -> int:
    """Return the epochs of warm-up: 5 of 200."""
    return max(round(epochs / 40), 1)


def product(manifest: pd.DataFrame, pixels: np.ndarray, epochs: int, seed: int, precision: str, threads: int) -> float:
    """Return the test accuracy of ltpipe's ce, in percent."""
    from ltpipe.benchmark import load
    from ltpipe.train import predict_by_torch
    from ltpipe.training.train import train

    root = Path(__file__).parents[1]
    spec = load(root / "conf/base", ["cifar10_lt_jpeg"])["cifar10_lt_jpeg"]
    decay = {round(0.8 * epochs): 0.1, round(0.9 * epochs): 0.01}
    changes = {"epochs": epochs, "warmup": warmup(epochs), "decay": decay, "precision": precision, "threads": threads}
    schedule = spec.schedule.with_changes(changes | {"weight_decay": WEIGHT_DECAY, "save_every": 10**9})
    run, cell = spec.runs["ce"].train, "cifar10_lt_jpeg.ce.s0"
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        checkpoint, _ = train(manifest, pixels, scratch, run, schedule, spec.model, seed, cell=cell, device="cpu")
        table = predict_by_torch(manifest, pixels, checkpoint, spec, "ce", "cpu").query("split == 'test'")
    return 100 * float((table["predicted"] == table["label"]).mean())


def recompressed(image: Image.Image) -> Image.Image:
    """Return the image after one more JPEG compression, on a grid of blocks that is moved by 4 pixels."""
    buffer = io.BytesIO()
    padded = Image.fromarray(np.pad(np.asarray(image), ((4, 4), (4, 4), (0, 0)), mode="edge"))
    padded.save(buffer, "JPEG", quality=75, subsampling="4:2:0")
    return ImageOps.crop(Image.open(buffer).convert("RGB"), 4)


def note(epochs: int, arm: str, seed: int, accuracy: float) -> None:
    """Add one accuracy to the results, which other processes may write too."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    entry = results.setdefault(f"{epochs} epochs", {}).setdefault(arm, {"accuracy": {}})
    entry["accuracy"][str(seed)] = accuracy
    values = list(entry["accuracy"].values())
    entry |= {"n": len(values), "mean": statistics.mean(values)}
    entry["std"] = statistics.stdev(values) if len(values) > 1 else None
    results |= {"what": "test accuracy of ce, percent, by seed", "python": platform.python_version()}
    results["versions"] = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def known(epochs: int, arm: str, seed: int) -> bool:
    """Return whether the results hold this one."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return str(seed) in results.get(f"{epochs} epochs", {}).get(arm, {"accuracy": {}})["accuracy"]


def main() -> None:
    """Train every arm with every seed that the results lack, and write mean and deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    manifest = pd.read_parquet(arguments.folder / "manifest.parquet")
    pixels = np.load(arguments.folder / "images.npy", allow_pickle=False)
    to_image = transforms.ToPILImage()
    pairs = {
        split: [(to_image(pixels[row]), int(label)) for row, label in zip(rows["row"], rows["label"], strict=True)]
        for split, rows in manifest.groupby("split")
    }
    for seed, arm in itertools.product(range(arguments.seeds), arguments.arms):
        if known(arguments.epochs, arm, seed):
            continue
        began = time.perf_counter()
        way, precision = arm.split()
        train, test = pairs["train"], pairs["test"]
        if way == "recompressed":
            train, test = ([(recompressed(image), label) for image, label in part] for part in (train, test))
        if way == "product":
            value = product(manifest, pixels, arguments.epochs, seed, precision, arguments.threads)
        else:
            value = control(train, test, arguments.epochs, seed, precision)
        note(arguments.epochs, arm, seed, value)
        print(f"{arm} seed {seed}: {value:.2f} ({time.perf_counter() - began:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
