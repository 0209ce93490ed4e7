"""How sharp training's random boxes are before and after whole pictures are read: benchmark by benchmark.

    uv run python benchmarks/crop_shares.py [--tiny tiny-imagenet-200]

Share of boxes that are enlarged, and median of source pixels per output pixel, by ltpipe.data.crops. ImageNet and COCO
are not here: all pictures count as 500 x 375, ImageNet's usual size; COCO's patches and iNaturalist's photographs by
the sizes below. Only the figures of Tiny ImageNet are of the pictures themselves. Writes
benchmarks/results/crop_shares.json.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from ltpipe.benchmark import load
from ltpipe.data.crops import summarise
from ltpipe.data.decode import Picture, picture_sizes
from ltpipe.data.source import Source

ROOT = Path(__file__).parents[1]
# width and height of the pictures that stand for a benchmark's, and where they are from
ASSUMED = {
    "imagenet_glt": ((500, 375), "a usual photograph of ImageNet"),
    "imagenet_lt": ((500, 375), "a usual photograph of ImageNet"),
    "mscoco_glt": ((375, 375), "a patch as high as a usual photograph"),
    "places_lt": ((256, 256), "the small images of Places365"),
    "inaturalist2018": ((800, 600), "the longest side is at most 800 pixels"),
}


def measure(name: str, sizes: np.ndarray) -> dict[str, dict[str, float]]:
    """Return the figures of the benchmark's route, of packed squares, and of pictures packed at 256 pixels."""
    spec = load(ROOT / "conf/base", [name])[name]
    area, image, size = spec.schedule.augment.resized_crop, spec.model.image, spec.source.size
    routes = {
        "squares": Source(name="image_folder", size=size),
        "packed 256": Source(name="image_folder", size=size, pictures="packed", shorter_side=256),
        "whole": Source(name="image_folder", size=size, pictures="files"),
    }
    assert area is not None
    found = {route: summarise(sizes, source, area, image) for route, source in routes.items()}
    return {route: {key: facts[key] for key in ("upsampled", "median")} for route, facts in found.items()}


def measure_windows(folder: Path, image: int) -> dict[str, float]:
    """Return the figures of padded windows of the squares of Tiny ImageNet: nothing but the packing resizes them."""
    files = sorted((folder / "train").rglob("*.JPEG"))
    short = picture_sizes([Picture(file) for file in files]).min(axis=1)
    ratio = np.minimum(short / image, 1)
    return {"pictures": len(files), "upsampled": float((ratio < 1).mean()), "median": float(np.median(ratio))}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", type=Path, help="the unpacked folder tiny-imagenet-200")
    tiny = parser.parse_args().tiny
    result = {}
    for name, (size, why) in ASSUMED.items():
        routes = measure(name, np.array([size]))
        result[name] = {
            "route": load(ROOT / "conf/base", [name])[name].source.pictures,
            "assumed": [*size, why],
        } | routes
    for name in ("tiny_imagenet_lt", "tiny_imagenet_glt") if tiny else ():
        result[name] = {"route": "squares", "windows": measure_windows(tiny, 64)}
    for name, facts in result.items():
        print(name, json.dumps(facts))
    (Path(__file__).parent / "results/crop_shares.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
