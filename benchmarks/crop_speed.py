"""Images/s of batches for an ImageNet network: random boxes at 224 x 224, flipped, normalised.

    uv run python benchmarks/crop_speed.py [--device cuda] [--images 2048] [--repeats 5]

usual      torchvision's transforms on each PIL image, decoded beforehand, in a DataLoader with workers
resident   images on the device as uint8, resampled there batch by batch
stored     images in a file, read ahead batch by batch, the rest as resident

The three above take boxes of 256 x 256 images. Those below take them of 500 x 375 pictures, as training does:

loader     JPEG files: torchvision's transforms in a DataLoader with workers, as most public code has it
files      JPEG files: the reference route, source.pictures: files
packed     pictures packed at a shorter side of 256: source.pictures: packed

All take turns within each repeat, so that changes of the machine's speed affect all of them. The first repeat
warms up and is not counted. Nothing is trained. Writes benchmarks/results/crop_speed_<device>.json.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from ltpipe.data.decode import Picture
from ltpipe.data.originals import Files, Packed, pack_pictures, trace
from ltpipe.data.source import Source
from ltpipe.interface.phases import Augment
from ltpipe.models.model import Model
from ltpipe.models.pixels import channel_scale, normalise
from ltpipe.training.augment.batch import augment_batch
from ltpipe.training.determinism import generator
from ltpipe.training.images import SplitImages
from ltpipe.training.pictures import Pictures

BATCH, PACKED, SIZE = 64, 256, 224
WIDTH, HEIGHT, SIDE = 500, 375, 256
MODEL = Model(backbone="resnet", image=SIZE)
AUGMENT = Augment(resized_crop=(0.08, 1.0), flip=True)


class Samples(torch.utils.data.Dataset):
    """PIL images, or their files, with the transforms of the ImageNet recipe, sample by sample."""

    def __init__(self, images: list) -> None:
        from torchvision import transforms

        self.images = images
        steps = [transforms.RandomResizedCrop(SIZE), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose([*steps, transforms.Normalize(MODEL.mean, MODEL.std)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> torch.Tensor:
        from torchvision.datasets.folder import pil_loader

        image = self.images[i]
        return self.transform(pil_loader(image) if isinstance(image, Path) else image)


def usual_batches(data: Samples, device: torch.device, workers: int) -> Iterator[torch.Tensor]:
    """Yield batches as most public code makes them."""
    pinned = device.type == "cuda"
    for images in torch.utils.data.DataLoader(data, BATCH, shuffle=True, num_workers=workers, pin_memory=pinned):
        yield images.to(device, non_blocking=True)


def our_batches(images: SplitImages, repeat: int) -> Iterator[torch.Tensor]:
    """Yield batches as the training loop makes them."""
    mean, std = channel_scale(MODEL.mean, images.device), channel_scale(MODEL.std, images.device)
    rows = torch.randperm(len(images.labels), generator=generator(torch.device("cpu"), repeat)).to(images.device)
    for step, _, (pixels,) in images.prefetch([[part] for part in rows.split(BATCH)], 0):
        augmented = augment_batch(pixels, AUGMENT, generator(images.device, repeat, step), SIZE)
        yield normalise(augmented, SIZE, mean, std)


def whole_batches(pictures: Pictures, device: torch.device, repeat: int) -> Iterator[torch.Tensor]:
    """Yield batches of whole pictures as the training loop makes them."""
    mean, std = channel_scale(MODEL.mean, device), channel_scale(MODEL.std, device)
    rows = torch.randperm(len(pictures.rows), generator=generator(torch.device("cpu"), repeat))
    steps = [[part] for part in rows.split(BATCH)]
    for step, _, (pixels,) in pictures.prefetch(steps, 0, AUGMENT, (0, 0, repeat), device):
        augmented = augment_batch(pixels, AUGMENT.after_crop(), generator(device, repeat, step), SIZE)
        yield normalise(augmented, SIZE, mean, std)


def write_photographs(count: int, folder: Path) -> list[Path]:
    """Write JPEG files of 500 x 375 pixels and about 100 kB, as many of ImageNet's are: soft colours with noise."""
    from PIL import Image

    random, paths = np.random.RandomState(0), [folder / f"{i}.jpg" for i in range(count)]
    for path in paths:
        soft = Image.fromarray(random.randint(0, 256, (12, 16, 3)).astype(np.uint8))
        pixels = np.asarray(soft.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(np.int16)
        pixels = pixels + random.randint(-12, 13, (HEIGHT, WIDTH, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return paths


def open_pictures(paths: list[Path]) -> tuple[Files, Packed]:
    """Return the pictures in their files, and packed in memory."""
    import pandas as pd

    source = Source(name="image_folder", size=PACKED, pictures="packed", shorter_side=SIDE)
    table = pd.DataFrame({"file": [path.name for path in paths], "row": range(len(paths)), "role": "train"})
    manifest, originals = trace(table, source, paths[0].parent)
    flat, sizes = pack_pictures(manifest, originals, source, paths[0].parent)
    return Files({i: Picture(path) for i, path in enumerate(paths)}), Packed(flat, sizes, list(table["row"]))


def measure_speed(batches: Iterator[torch.Tensor], device: torch.device) -> float:
    """Return images/s, measured until the last batch is on the device."""
    count, began = 0, time.perf_counter()
    for batch in batches:
        count += len(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return count / (time.perf_counter() - began)


def smooth_images(count: int) -> np.ndarray:
    """Return random images that change slowly from pixel to pixel, as photographs do; uint8, N x 256 x 256 x 3."""
    coarse = np.random.RandomState(0).randint(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    return coarse.repeat(PACKED // 8, axis=1).repeat(PACKED // 8, axis=2)


def main() -> None:
    """Measure the speeds, print them, and write them to a file."""
    from PIL import Image

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=min(os.cpu_count() or 1, 8))
    arguments = parser.parse_args()
    device, load = torch.device(arguments.device), os.getloadavg()[0]
    pixels, labels = smooth_images(arguments.images), np.zeros(arguments.images, np.int64)
    workers = arguments.workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "images.npy", pixels)
        store = np.load(folder / "images.npy", mmap_mode="r")
        split = {"store": store, "rows": np.arange(len(labels)), "labels": labels, "groups": labels, "device": device}
        splits = {"resident": SplitImages.of(**split, resident=1e12), "stored": SplitImages.of(**split, resident=0)}
        usual = {"usual": Samples([Image.fromarray(image) for image in pixels])}
        usual["loader"] = Samples(write_photographs(arguments.images, folder))
        routes = zip(("files", "packed"), open_pictures(usual["loader"].images), strict=True)
        whole = {route: Pictures(opener, np.arange(len(labels)), SIZE, workers) for route, opener in routes}
        speeds: dict[str, list[float]] = {name: [] for name in ("usual", "resident", "stored", "loader", *whole)}
        for repeat in range(arguments.repeats + 1):
            for name in speeds:
                if name in usual:
                    batches = usual_batches(usual[name], device, workers)
                elif name in whole:
                    batches = whole_batches(whole[name], device, repeat)
                else:
                    batches = our_batches(splits[name], repeat)
                speed = measure_speed(batches, device)
                if repeat:
                    speeds[name].append(speed)
    result = {
        "what": "images/s of batches of 64: random boxes at 224 x 224, flip, normalisation. usual, resident, "
        "stored: of decoded images of 256 x 256; loader, files, packed: of pictures of 500 x 375",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "images": arguments.images,
        "workers": arguments.workers,
        "load before": load,
        "n": arguments.repeats,
        "images_per_second": {
            name: {"median": statistics.median(v), "min": min(v), "max": max(v)} for name, v in speeds.items()
        },
    }
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, median in medians.items():
        against = "loader" if name in whole else "usual"
        print(f"{name:10} {median:8.0f} images/s (n {arguments.repeats}), {median / medians[against]:.2f} x {against}")
    path = Path(__file__).parent / "results" / f"crop_speed_{device.type}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
