"""Image files as arrays of one size: shorter side brought to `size` (bilinear, antialiased), then the centre square.

What a file may hold and what becomes of it:

    greyscale, CMYK, palette     converted to RGB
    transparency                 laid over white
    16 bits a channel            the upper 8 bits
    EXIF orientation             applied; a broken EXIF block is ignored
    several frames               the first
    empty, cut short, no image, more pixels than Pillow's limit, floating point, no permission
                                 Refused, with the name of each such file and the reason

A link to a file is that file.

A JPEG more than twice too large is shrunk by its decoder first (by 2, 4 or 8, never below twice `size`).
The pixels depend on the versions of Pillow and of its JPEG library, not on the number of threads.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ltpipe.config.spec import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

# files a thread takes at once
CHUNK = 64
# files that a message names, and what it says of them
SHOWN = 10
ADVICE = "a whole copy is needed in place of each (of an official dataset: unpack its archive again)"
ORIENTATION = 0x0112

# what ends a whole file; JPEG's cannot occur in coded pixels, where 0 follows every 255
MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
# bytes at a file's end that are searched for it
TAIL = 4096

Crop = Callable[["Image", int], "Image"]


def decode(paths: Sequence[Path], size: int, crop: Crop | None = None) -> np.ndarray:
    """The files as uint8, N x size x size x 3, in the order of `paths`.

    crop: cuts the upright RGB image of file number i before it is resized: crop(image, i).
    Raises Refused where files cannot be decoded, with their number and the first ten in order: all are tried first, so
    that whoever mends one file after an hour does not wait another hour for the next.
    """
    images = np.empty((len(paths), size, size, 3), np.uint8)

    def fill(i: int) -> str:
        try:
            images[i] = _one(paths[i], size, None if crop is None else lambda image: crop(image, i))
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever their parsers do
            return _reason(paths[i], error)
        return ""

    if failed := _failed(fill, paths, "decode"):
        raise Refused(_complaint(failed, len(paths)))
    return images


def broken(paths: Sequence[Path]) -> dict[Path, str]:
    """The files that are no image of a size that `decode` takes, or that are cut short, each with the reason.

    Reads a file's header and its end. A file without the mark that ends its format is decoded, to be sure; one that is
    damaged in between is found by `decode` alone.
    """
    return _failed(lambda i: _fault(paths[i]), paths, "check")


def _failed(work: Callable[[int], str], paths: Sequence[Path], title: str) -> dict[Path, str]:
    """Path -> reason of each file number i for which work(i) gives a reason, in the order of `paths`."""
    reasons: list[str] = [""] * len(paths)

    def keep(i: int) -> None:
        reasons[i] = work(i)

    _parallel(keep, len(paths), title)
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def _complaint(failed: Mapping[Path, str], images: int) -> str:
    lines = [f"{path}: {reason}" for path, reason in list(failed.items())[:SHOWN]]
    if len(failed) == 1:
        return f"cannot decode {lines[0]}\n  {ADVICE}"
    more = [f"and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else []
    return "\n  ".join([f"cannot decode {len(failed)} of {images} files:", *lines, *more, ADVICE])


def _parallel(work: Callable[[int], None], count: int, title: str) -> None:
    """work(0), ..., work(count - 1) in threads (Pillow decodes without the interpreter's lock)."""
    from tqdm import tqdm

    def chunk(start: int) -> int:
        stop = min(start + CHUNK, count)
        for i in range(start, stop):
            work(i)
        return stop - start

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    with ThreadPoolExecutor(max(2, cores)) as pool, tqdm(total=count, desc=title, disable=None) as bar:
        for done in pool.map(chunk, range(0, count, CHUNK)):
            bar.update(done)


def _one(path: Path, size: int, crop: "Callable[[Image], Image] | None") -> np.ndarray:
    from PIL import Image

    with Image.open(path) as file:
        _bounded(file)
        if crop is None:
            file.draft(None, (2 * size, 2 * size))  # type: ignore[arg-type]
        file.load()  # before EXIF is read, which for PNG decodes too and would hide an error
        image = rgb(_upright(file))
        return np.asarray(square(image if crop is None else crop(image), size))


def _fault(path: Path) -> str:
    """Why the file is no image that `decode` takes; empty where its header and its end say that it is one."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            _bounded(file)
            if not _ended(path, file.format):
                file.load()
            return "floating-point pixels" if file.mode == "F" else ""
    except Exception as error:  # noqa: BLE001 - as in decode
        return _reason(path, error)


def _ended(path: Path, format: str | None) -> bool:
    """Whether the mark that ends an image of this format is where the file ends (other bytes may follow it)."""
    mark = MARKS.get(format or "")
    if mark is None:
        return False
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL, 0))
        return mark in file.read()


def _reason(path: Path, error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, FileNotFoundError):
        return "no such file"
    if path.is_file() and path.stat().st_size == 0:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which the message has already
    return str(error) or type(error).__name__


def _bounded(image: "Image") -> None:
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels, more than the {limit} that are decoded")


def _upright(image: "Image") -> "Image":
    from PIL import ImageOps

    try:
        turned = image.getexif().get(ORIENTATION, 1) != 1
    except Exception:  # noqa: BLE001 - a broken EXIF block must not cost the image
        turned = False
    return ImageOps.exif_transpose(image) if turned else image


def rgb(image: "Image") -> "Image":
    """The image in 8-bit RGB (see the module's table)."""
    from PIL import Image

    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode.startswith("I"):
        return _from_16_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _from_16_bits(image: "Image") -> "Image":
    from PIL import Image

    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels")
    return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")


def square(image: "Image", size: int) -> "Image":
    """The centre square of an RGB image, size x size."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.crop(box) if side == size else image.resize((size, size), Image.Resampling.BILINEAR, box=box)
