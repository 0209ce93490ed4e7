"""How far are CIFAR-10's JPEG files from the archive's pixels, and are they in its order?

    uv run python benchmarks/jpeg_loss.py data/01_raw/cifar10/cifar-10-batches-bin /path/to/cifar10-jpeg

The first folder is the unpacked binary archive; the second one holds train/<class>/0000.jpg and test/<class>/0000.jpg.
For each file, the nearest image of the archive's class is searched. In benchmarks/results/jpeg_loss.json: the MD5 of
each file of the archive, the number of files whose nearest image has the file's number in its class, and the PSNR.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "jpeg_loss.json"
RECORD = 1 + 3 * 32 * 32


def read_archive(folder: Path, files: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return images, N x 32 x 32 x 3, and labels, N, of these files."""
    records = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, RECORD) for name in files])
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def read_class(folder: Path) -> np.ndarray:
    """Return the pictures of a folder in the order of their names, N x 32 x 32 x 3."""
    return np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*.jpg"))])


def compare(archive: np.ndarray, files: np.ndarray) -> tuple[int, float]:
    """Return how many files have a nearest image of their own number, and the sum of squared differences."""
    a, b = (x.reshape(len(x), -1).astype(np.float32) / 255 for x in (archive, files))
    nearest = ((a**2).sum(axis=1)[None] - 2 * b @ a.T).argmin(axis=1)
    return int((nearest == np.arange(len(b))).sum()), float(((a - b) ** 2).sum(dtype=np.float64))


def measure(archive: Path, jpeg: Path) -> dict[str, object]:
    """Return the comparison of both folders."""
    names = [line for line in (archive / "batches.meta.txt").read_text().split("\n") if line]
    splits = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
    same, total, squares = 0, 0, 0.0
    for split, files in splits.items():
        images, labels = read_archive(archive, files)
        for label, name in enumerate(names):
            found = read_class(jpeg / split / name)
            hits, error = compare(images[labels == label], found)
            same, total, squares = same + hits, total + len(found), squares + error
    sums = {file: hashlib.md5((archive / file).read_bytes()).hexdigest() for part in splits.values() for file in part}
    return {
        "files": total,
        "nearest_is_the_same_number": same,
        "psnr_db": round(-10 * math.log10(squares / (total * 3072)), 2),
        "md5": sums,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("jpeg", type=Path)
    arguments = parser.parse_args()
    result = measure(arguments.archive, arguments.jpeg)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
