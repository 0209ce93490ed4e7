"""Whole pictures of the training images: found and measured, packed at a shorter side, or opened from their files.

For benchmarks whose `source.pictures` is `packed` or `files`. Their training takes random boxes from whole pictures, as
the usual data loader does, and not from packed squares. The squares, of which evaluation is, are then exactly what
torchvision's Resize and CenterCrop give of the whole picture.

The table `originals` has a row for each training image:
    row             the image's row in the packed array of squares
    file            as in the manifest
    width, height   of the upright picture, in pixels
    digest          of the content of the picture's file, and of the box of a patch; "" where squares are trained on
If pictures are packed, attrs["packed"] is a digest of their bytes and sizes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.data.acquire.content import content_digests
from ltpipe.data.arrays import allocate
from ltpipe.data.decode import Picture, crop_square, measure_picture, open_each, open_picture, picture_sizes
from ltpipe.data.source import Source
from ltpipe.storage.identity import digest
from ltpipe.storage.manifest import digest_images
from ltpipe.storage.provenance import code_version
from ltpipe.storage.table import Table

if TYPE_CHECKING:
    from PIL.Image import Image


def find_pictures(source: Source, raw: Path, files: Sequence[str]) -> list[Picture]:
    """Return the pictures of the `file` values of an index. Raises Refused if the source keeps none."""
    module = source.module()
    if hasattr(module, "find_pictures"):
        pictures: list[Picture] = module.find_pictures(source.config(), raw, files)
        return pictures
    if any(file.isdigit() for file in files):
        raise Refused(
            f"source {source.name} keeps its images in an array, not in picture files: state source.pictures: squares, "
            "and no expect.crops"
        )
    return [Picture(raw / file) for file in files]


def _digest_files(pictures: Sequence[Picture], raw: Path) -> list[str]:
    """Return the digest of each picture's file and box; files that have not changed are not read again."""
    try:
        digests = content_digests(raw, [picture.path.relative_to(raw).as_posix() for picture in pictures], raw)
    except OSError as error:
        raise Refused(f"cannot read {error.filename}: {error.strerror}") from None
    cuts = [picture.cut for picture in pictures]
    # patches of one photograph differ by their boxes only
    return [
        content if cut is None else digest([content, cut.args, cut.keywords])
        for content, cut in zip(digests, cuts, strict=True)
    ]


def note_contents(listed: Table, source: Source, raw: Path) -> Table:
    """Return the index with a digest of its pictures' files, by which DVC sees that one of them was edited."""
    digests = _digest_files(find_pictures(source, raw, listed["file"].tolist()), raw)
    index = listed.copy()
    index.attrs["contents"] = digest(digests)
    return index


def trace(drawn: Table, source: Source, raw: Path) -> tuple[Table, Table]:
    """Return the candidate manifest, with a digest of what training reads of whole pictures, and `originals`.

    The manifest's attrs["pictures"] is the route in plain words: [source.pictures, source.shorter_side]. Of squares
    there is neither.
    """
    rows = drawn[drawn["role"] == "train"].drop_duplicates("row").sort_values("row", ignore_index=True)
    pictures = find_pictures(source, raw, rows["file"].tolist())
    originals = rows[["row", "file"]].copy()
    originals[["width", "height"]] = picture_sizes(pictures)
    originals["digest"] = "" if source.pictures == "squares" else _digest_files(pictures, raw)
    candidate = drawn.copy()
    if source.pictures != "squares":
        route = [source.pictures, source.shorter_side]
        code = code_version({__name__} | source.modules())
        candidate.attrs["pictures"] = route
        candidate.attrs["originals"] = digest([*route, code, originals["digest"].tolist()])
    return candidate, originals


def pack_exactly(manifest: Table, source: Source, raw: Path) -> np.ndarray:
    """Return the manifest's images as ltpipe.data.pack does, but of whole pictures that no decoder has shrunk."""
    files = manifest.drop_duplicates("row").sort_values("row")["file"].tolist()
    size = source.size
    images = allocate(f"{len(files)} images of size {size}", (len(files), size, size, 3), np.uint8, raw.parent, 2)
    pictures = find_pictures(source, raw, files)

    def keep(i: int, picture: "Image") -> None:
        _check_size(picture, measure_picture(pictures[i]))
        images[i] = np.asarray(crop_square(picture, size))

    open_each(pictures, keep, "pack")
    return images


def _check_size(picture: "Image", measured: tuple[int, int]) -> None:
    """Raise ValueError if a picture has not the width and the height that were measured: it would be stretched."""
    if picture.size != measured:
        found, said = (f"{width} x {height}" for width, height in (picture.size, measured))
        raise ValueError(f"the picture has {found} pixels, but was measured as {said}")


def packed_sizes(sizes: np.ndarray, side: int) -> np.ndarray:
    """Return width and height of pictures whose shorter side is resized to `side`, but never enlarged; N x 2."""
    short = sizes.min(axis=1, keepdims=True)
    resized: np.ndarray = np.where(short > side, side * sizes // short, sizes)
    return resized


def pack_pictures(manifest: Table, originals: Table, source: Source, raw: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return whole pictures at `source.shorter_side`, one after another, uint8; and their widths and heights, N x 2.

    In the order of `originals`. manifest: the admitted one, of which nothing is read. Raises Refused if there is no
    room for them.
    """
    from PIL.Image import Resampling

    assert source.shorter_side is not None
    measured = originals[["width", "height"]].to_numpy()
    sizes = packed_sizes(measured, source.shorter_side)
    bounds = _bounds(sizes)
    flat = allocate(
        f"{len(sizes)} pictures of {source.shorter_side} pixels", (int(bounds[-1]),), np.uint8, raw.parent, 2
    )

    def keep(i: int, picture: "Image") -> None:
        _check_size(picture, tuple(measured[i].tolist()))
        size = (int(sizes[i, 0]), int(sizes[i, 1]))
        small = picture if picture.size == size else picture.resize(size, Resampling.BILINEAR)
        flat[bounds[i] : bounds[i + 1]] = np.asarray(small).reshape(-1)

    open_each(find_pictures(source, raw, originals["file"].tolist()), keep, "pack pictures")
    return flat, sizes


def _bounds(sizes: np.ndarray) -> np.ndarray:
    """Return where the bytes of each picture begin, and where those of the last one end; N + 1."""
    bounds: np.ndarray = np.concatenate([[0], np.cumsum(3 * sizes.prod(axis=1))])
    return bounds


@dataclass(frozen=True)
class Files:
    """Pictures in their files. pictures: by the image's row in the packed array of squares."""

    pictures: dict[int, Picture]

    def __call__(self, row: int) -> "Image":
        """Return a whole picture, upright, in RGB."""
        return open_picture(self.pictures[row])

    def __deepcopy__(self, memo: Any) -> "Files":
        """Return the same object, which nobody changes: Kedro copies what one node hands to another."""
        return self


def open_files(originals: Table, source: Source, raw: Path) -> Files:
    """Return what opens the pictures.

    Raises Refused if the split was drawn for packed pictures, or if a file has changed since then.
    """
    if "packed" in originals.attrs:
        raise Refused(
            "the split was drawn for source.pictures: packed, not files: draw it again (--tags=fetch,cluster,split)"
        )
    pictures = find_pictures(source, raw, originals["file"].tolist())
    now = _digest_files(pictures, raw)
    changed = [file for file, a, b in zip(originals["file"], originals["digest"], now, strict=True) if a != b]
    if changed:
        raise Refused(
            f"{len(changed)} training pictures in {raw} have changed since the split was drawn, e.g. {changed[0]}: run "
            "the stages of the data again (--tags=fetch,cluster,split), or dvc repro"
        )
    return Files(dict(zip(originals["row"].tolist(), pictures, strict=True)))


class Packed:
    """Pictures of `pack_pictures`. rows: of each picture's image in the packed array of squares."""

    def __init__(self, flat: np.ndarray, sizes: np.ndarray, rows: Sequence[int]) -> None:
        self.flat, self.sizes, self.rows = flat, sizes, rows
        self.bounds, self.places = _bounds(np.asarray(sizes)), {row: i for i, row in enumerate(rows)}

    def __call__(self, row: int) -> "Image":
        """Return a whole picture."""
        from PIL import Image

        place = self.places[row]
        width, height = self.sizes[place]
        pixels = self.flat[self.bounds[place] : self.bounds[place + 1]].reshape(height, width, 3)
        return Image.fromarray(np.asarray(pixels))

    def __deepcopy__(self, memo: Any) -> "Packed":
        """Return the same object: see Files."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the name of a mapped file, and not its content: the pictures may not fit into memory."""
        if isinstance(self.flat, np.memmap) and self.flat.filename is not None:
            return _reopen, (str(self.flat.filename), self.sizes, self.rows)
        return Packed, (self.flat, self.sizes, self.rows)


def _reopen(path: str, sizes: np.ndarray, rows: Sequence[int]) -> Packed:
    return Packed(np.load(path, mmap_mode="r", allow_pickle=False), sizes, rows)


def note_packed(traced: Table, pictures: np.ndarray, sizes: np.ndarray) -> Table:
    """Return `originals` with a digest of the packed pictures. pictures, sizes: of `pack_pictures`."""
    originals = traced.copy()
    originals.attrs["packed"] = _digest_packed(pictures, sizes)
    return originals


def _digest_packed(pictures: np.ndarray, sizes: np.ndarray) -> str:
    """Return a digest of every byte of the pictures, and of their sizes."""
    return digest([digest_images(pictures), digest_images(sizes)])


def open_packed(originals: Table, pictures: np.ndarray, sizes: np.ndarray) -> Packed:
    """Return what opens packed pictures. pictures, sizes: of `pack_pictures`.

    Raises Refused if they are not those of `originals`; all bytes are read once for that.
    """
    if problem := _compare_packed(originals, pictures, sizes):
        raise Refused(
            f"the packed pictures are not those of this split: {problem}; pack them again: run the stages of the data "
            "(--tags=fetch,cluster,split), or dvc repro"
        )
    return Packed(pictures, np.array(sizes), originals["row"].tolist())


def _compare_packed(originals: Table, pictures: np.ndarray, sizes: np.ndarray) -> str:
    """Return why packed pictures are not those of `originals`, or ""."""
    if sizes.shape != (len(originals), 2):
        return f"{len(sizes)} sizes are there, {len(originals)} pictures are needed"
    if pictures.shape != (needed := int(_bounds(sizes)[-1]),):
        return f"{pictures.size:,} bytes are there, {needed:,} are needed"
    found, asked = _digest_packed(pictures, sizes), originals.attrs.get("packed")
    return "" if found == asked else f"their digest is {found}, not {asked}"
