"""Decode image files: whole (`open_picture`), or as arrays of one size: the shorter side at `size`, the centre square.

Resizing is bilinear and antialiased, and the square is that of torchvision's Resize and CenterCrop. What a file may
hold, and what becomes of it:

    greyscale, CMYK, palette     converted to RGB
    transparency                 laid over white
    16 bits per channel          the upper 8 bits are kept
    EXIF orientation             applied; a broken EXIF block is ignored
    several frames               the first is used
    empty, cut short, no image, more pixels than Pillow's limit, floating point, no permission
                                 Refused, with the number of such files, the first ten names, and the reasons

A link to a file stands for that file.

In `decode`, the decoder of a JPEG that is more than twice too large shrinks it first (by 2, 4 or 8, never below twice
`size`). That is faster, and the pixels are nearly those of the whole picture.
The pixels depend on the versions of Pillow and of its JPEG library, not on the number of threads.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ltpipe.config.spec import Refused

if TYPE_CHECKING:
    from PIL.Image import Image

# files in one task of a thread
CHUNK = 64
# files that a message names, and the advice at its end
SHOWN = 10
ADVICE = "replace each by an intact copy (for an official dataset: unpack its archive again)"
# EXIF's tag for how the camera was held
ORIENTATION = 0x0112
# from this orientation on, width and height change places
SIDEWAYS = 5

# bytes that end a complete file; JPEG's cannot occur in coded pixels, where 0 follows every 255
END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
# bytes at a file's end that are searched for the mark
TAIL = 4096

Crop = Callable[["Image", int], "Image"]


class Picture(NamedTuple):
    """A whole picture: a file, and what cuts the picture out of the file's upright image, if it is a part of it.

    The arguments of `cut` are JSON values: they are a part of the picture's digest.
    """

    path: Path
    cut: "partial[Image] | None" = None


def open_picture(picture: Picture) -> "Image":
    """Return a picture, upright, in RGB, in all its pixels. Raises Refused if its file cannot be decoded."""
    try:
        return _open(picture)
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever their parsers do
        raise Refused(_describe_failures({picture.path: _explain(picture.path, error)}, 1)) from None


def _open(picture: Picture) -> "Image":
    image = _load(picture.path, None)
    return image if picture.cut is None else picture.cut(image)


def open_each(pictures: Sequence[Picture], receive: Callable[[int, "Image"], None], title: str) -> None:
    """Call receive(i, picture i) for each picture, in threads. Raises Refused as `decode`."""
    _try_all(lambda i: receive(i, _open(pictures[i])), [picture.path for picture in pictures], title)


def picture_sizes(pictures: Sequence[Picture]) -> np.ndarray:
    """Return width and height of each picture, N x 2, int64, from the files' headers. Raises Refused as `decode`."""
    sizes = np.zeros((len(pictures), 2), np.int64)

    def measure(i: int) -> None:
        sizes[i] = measure_picture(pictures[i])

    _try_all(measure, [picture.path for picture in pictures], "measure")
    return sizes


def measure_picture(picture: Picture) -> tuple[int, int]:
    """Return width and height of the upright picture, from its file's header."""
    from PIL import Image

    with Image.open(picture.path) as file:
        _check_pixel_count(file)
        # of a TIFF, Pillow states the upright size when it opens it
        upright = file.format == "TIFF" or _orientation(file) < SIDEWAYS
        width, height = file.size if upright else file.size[::-1]
    if picture.cut is None:
        return width, height
    size: tuple[int, int] = picture.cut(Image.new("1", (width, height))).size
    return size


def decode(paths: Sequence[Path], size: int, crop: Crop | None = None) -> np.ndarray:
    """Return the images of the files, uint8, N x size x size x 3, in the order of `paths`.

    crop: crop(image, i) cuts the upright RGB image of file number i before it is resized.
    Raises Refused if files cannot be decoded, with their number and the first ten. All files are tried before that, so
    that whoever repairs one file after an hour does not wait another hour to learn of the next.
    """
    images = np.empty((len(paths), size, size, 3), np.uint8)

    def fill(i: int) -> None:
        # not with a crop, whose box is in pixels of the full image
        image = _load(paths[i], size if crop is None else None)
        images[i] = np.asarray(crop_square(image if crop is None else crop(image, i), size))

    _try_all(fill, paths, "decode")
    return images


def read_square(path: Path, size: int, *, shrink: bool) -> np.ndarray:
    """Return one file as it is packed, uint8, size x size x 3: with `shrink` as `decode` does, else of all its pixels.

    Raises Refused with the reason alone if the file cannot be decoded.
    """
    try:
        return np.asarray(crop_square(_load(path, size if shrink else None), size))
    except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever their parsers do
        raise Refused(_explain(path, error)) from None


def _try_all(work: Callable[[int], None], paths: Sequence[Path], title: str) -> None:
    """Call work(i) for each file i, in threads. Raises Refused with the reasons of all files for which it failed."""

    def attempt(i: int) -> str:
        try:
            work(i)
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever their parsers do
            return _explain(paths[i], error)
        return ""

    if reasons := _collect_reasons(attempt, paths, title):
        raise Refused(_describe_failures(reasons, len(paths)))


def find_broken(paths: Sequence[Path]) -> dict[Path, str]:
    """Return path -> reason for files that `decode` would refuse or that are cut short, without decoding intact ones.

    Reads a file's header and its end. A file without its format's end mark is decoded, to be sure. Damage in between,
    and pixels of 32 bits, are not noticed here, only by `decode`.
    """
    return _collect_reasons(lambda i: _check_file(paths[i]), paths, "check")


def _collect_reasons(work: Callable[[int], str], paths: Sequence[Path], title: str) -> dict[Path, str]:
    """Return path -> work(i) for the files i for which work(i) is not "", in the order of `paths`."""
    reasons: list[str] = [""] * len(paths)

    def run(i: int) -> None:
        reasons[i] = work(i)

    _run_parallel(run, len(paths), title)
    return {path: reason for path, reason in zip(paths, reasons, strict=True) if reason}


def _describe_failures(reasons: Mapping[Path, str], images: int) -> str:
    lines = [f"{path}: {reason}" for path, reason in list(reasons.items())[:SHOWN]]
    if len(reasons) == 1:
        return f"cannot decode {lines[0]}\n  {ADVICE}"
    more = [f"and {len(reasons) - SHOWN} more"] if len(reasons) > SHOWN else []
    return "\n  ".join([f"cannot decode {len(reasons)} of {images} files:", *lines, *more, ADVICE])


def _run_parallel(work: Callable[[int], None], count: int, title: str) -> None:
    """Call work(0), ..., work(count - 1) in threads (Pillow releases the interpreter's lock while it decodes)."""
    from tqdm import tqdm

    def run_chunk(start: int) -> int:
        stop = min(start + CHUNK, count)
        for i in range(start, stop):
            work(i)
        return stop - start

    # the cores that this process may use, which may be fewer than the machine's (container, batch job)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    with ThreadPoolExecutor(max(2, cores)) as pool, tqdm(total=count, desc=title, disable=None) as bar:
        for done in pool.map(run_chunk, range(0, count, CHUNK)):
            bar.update(done)


def _load(path: Path, size: int | None) -> "Image":
    """Return a file's image, upright, in RGB; shrunk by its decoder if it is far larger than `size`."""
    from PIL import Image

    with Image.open(path) as file:
        _check_pixel_count(file)
        if size is not None:
            file.draft(None, (2 * size, 2 * size))  # type: ignore[arg-type]
        file.load()  # before EXIF is read: for PNG, reading it decodes the file and would hide an error
        return to_rgb(_turn_upright(file))


def _check_file(path: Path) -> str:
    """Return why `decode` would refuse the file, as far as its header and its end tell; "" if they are intact."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            _check_pixel_count(file)
            if not _has_end_mark(path, file.format):
                file.load()
            return "floating-point pixels" if file.mode == "F" else ""
    except Exception as error:  # noqa: BLE001 - as in decode
        return _explain(path, error)


def _has_end_mark(path: Path, format: str | None) -> bool:
    """Tell whether the last bytes of the file hold its format's end mark (other bytes may follow it)."""
    mark = END_MARKS.get(format or "")
    if mark is None:
        return False
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - TAIL, 0))
        return mark in file.read()


def _explain(path: Path, error: Exception) -> str:
    """Return the reason, in words for a user, why the file could not be decoded."""
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


def _check_pixel_count(image: "Image") -> None:
    """Raise ValueError if the image has more pixels than Pillow's limit (Pillow raises only above twice the limit)."""
    from PIL import Image

    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels, more than the limit of {limit}")


def _turn_upright(image: "Image") -> "Image":
    """Return the image turned as its EXIF orientation says."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


def _orientation(image: "Image") -> int:
    """Return the EXIF orientation, 1 to 8."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a broken EXIF block is no reason to refuse the image
        return 1


def to_rgb(image: "Image") -> "Image":
    """Return the image in 8-bit RGB (see the module's table). Raises ValueError for 32-bit or floating-point pixels."""
    from PIL import Image

    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode.startswith("I"):
        return _convert_16_bits(image)
    # palette images have no alpha channel of their own, so convert to RGBA before the image is laid over white
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _convert_16_bits(image: "Image") -> "Image":
    """Return the upper 8 of 16 bits, as RGB. Raises ValueError if a value needs more than 16 bits."""
    from PIL import Image

    # Pillow may read a 16-bit file in the mode "I", whose pixels have 32 bits; its values are then at most 65535
    pixels = np.asarray(image).astype(np.int64)
    if pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("32-bit pixels")
    return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")


def crop_square(image: "Image", size: int) -> "Image":
    """Return the centre square of an RGB image, size x size, as torchvision's Resize(size) and CenterCrop(size) do."""
    from PIL import Image

    short = min(image.size)
    resized = [size if side == short else int(size * side / short) for side in image.size]
    corner = [round((side - size) / 2) for side in resized]
    if short == size:
        return image.crop((corner[0], corner[1], corner[0] + size, corner[1] + size))
    # Only the pixels of the square are computed: of a very long picture the rest would not fit into memory.
    steps = [old / new for old, new in zip(image.size, resized, strict=True)]
    ends = [(place + shift) * step for shift in (0, size) for place, step in zip(corner, steps, strict=True)]
    box = (ends[0], ends[1], min(ends[2], image.width), min(ends[3], image.height))
    return image.resize((size, size), Image.Resampling.BILINEAR, box=box)
