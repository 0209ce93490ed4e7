"""Images as uint8, turned into batches on the device: crop, flip, operations, normalisation."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ltpipe.methods.base import Augment
from ltpipe.models.servable import centred
from ltpipe.models.spec import Model
from ltpipe.training import crops, operations

AHEAD = 2  # batches read from the store before they are needed
CHUNK = 4096  # images brought to the device at once


@dataclass(frozen=True)
class Images:
    """One split. labels: N, on the device. groups: N, index into GROUPS. pixels: uint8, N x H x W x 3.

    Pixels are on the device; or they stay in `store` (an array of more images, mapped from its file) at `rows`, and
    are brought to the device a batch at a time. What a batch holds is the same.
    """

    labels: Tensor
    groups: Tensor
    pixels: Tensor | None
    store: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(
        cls,
        store: np.ndarray,
        rows: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        device: torch.device,
        resident: float,
    ) -> "Images":
        """Rows `rows` of `store`; on the device where they are at most `resident` bytes."""
        shape = (len(rows), *store.shape[1:])
        pixels = None
        if len(rows) * store[:1].nbytes <= resident:
            pixels = torch.empty(shape, dtype=torch.uint8, device=device)
            for start in range(0, len(rows), CHUNK):  # never the whole split beside the whole split
                pixels[start : start + CHUNK] = torch.from_numpy(store[rows[start : start + CHUNK]])
        return cls(torch.tensor(labels, device=device), torch.tensor(groups, device=device), pixels, store, rows)

    @property
    def device(self) -> torch.device:
        """Where batches are made."""
        return self.labels.device

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The whole split in order, `size` images at a time: pixels, labels, rows."""
        rows = torch.arange(len(self.labels), device=self.device)
        for _, (part,), (pixels,) in self.ahead([[part] for part in rows.split(size)], 0):
            yield pixels, self.labels[part], part

    def ahead(self, steps: list[list[Tensor]], start: int) -> Iterator[tuple[int, list[Tensor], list[Tensor]]]:
        """Number, rows and pixels of each step from `start` on; stored pixels are read while the step before trains."""
        if self.pixels is not None:
            for step in range(start, len(steps)):
                yield step, steps[step], [self.pixels[rows] for rows in steps[step]]
            return
        # as numbers of the store before anything is queued on the device, for which a copy from it would wait
        stored = [[self.rows[rows.cpu().numpy()] for rows in step] for step in steps]
        waiting: deque[Future[list[Tensor]]] = deque()
        pool = ThreadPoolExecutor(1)
        try:
            for step in range(start, len(steps)):
                while len(waiting) <= AHEAD and step + len(waiting) < len(steps):
                    waiting.append(pool.submit(self._read, stored[step + len(waiting)]))
                pixels = [part.to(self.device, non_blocking=True) for part in waiting.popleft().result()]
                yield step, steps[step], pixels
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, stored: list[np.ndarray]) -> list[Tensor]:
        """Rows of the store, in memory from which a GPU copies without waiting."""
        found = [torch.from_numpy(self.store[rows]) for rows in stored]
        return [part.pin_memory() for part in found] if self.device.type == "cuda" else found


def normalise(pixels: Tensor, model: Model) -> Tensor:
    """uint8 B x H x W x 3 -> float32 B x 3 x S x S (channels last in memory), (x / 255 - mean) / std.

    Larger images than the network's size S give their centre.
    """
    mean = torch.tensor(model.mean, device=pixels.device) * 255
    std = torch.tensor(model.std, device=pixels.device) * 255
    return ((centred(pixels, model.image).float() - mean) / std).permute(0, 3, 1, 2)


def augmented(pixels: Tensor, augment: Augment, generator: torch.Generator, size: int) -> Tensor:
    """What `augment` asks for, in its order: uint8 B x H x W x 3 -> B x size x size x 3.

    A function of the generator's state.
    """
    pixels = moved(_cropped(pixels, augment, generator, size), augment, generator, size)
    if augment.autoaugment:
        pixels = operations.autoaugment(pixels, generator)
    if augment.randaug:
        pixels = operations.randaug(pixels, generator)
    if augment.cutout:
        place = torch.rand(2, len(pixels), generator=generator, device=pixels.device)
        pixels = operations.cutout(pixels, torch.full_like(place[0], augment.cutout), place, 0)
    return pixels


def _cropped(pixels: Tensor, augment: Augment, generator: torch.Generator, size: int) -> Tensor:
    """Random boxes at `size`, or, where `moved` will not choose a window, the centre."""
    if augment.resized_crop:
        boxes = crops.boxes(len(pixels), pixels.shape[1], augment.resized_crop, generator)
        return crops.resized(pixels, boxes, size)
    return pixels if augment.crop else centred(pixels, size)


def moved(pixels: Tensor, augment: Augment, generator: torch.Generator, size: int) -> Tensor:
    """A random window of size x size after zero padding, random horizontal flip; uint8 B x H x W x 3 in and out.

    One gather for the whole batch: each image has its own offset and flip. Padding is black before normalisation.
    """
    count, device, pad = len(pixels), pixels.device, augment.crop
    rows = torch.arange(size, device=device).expand(count, size)
    columns = rows
    if augment.flip:
        flip = torch.rand(count, 1, generator=generator, device=device) < 0.5
        columns = torch.where(flip, columns.flip(1), columns)
    if pad:
        free = pixels.shape[1] + 2 * pad - size
        pixels = torch.nn.functional.pad(pixels, (0, 0, pad, pad, pad, pad))
        shift = torch.randint(0, free + 1, (2, count, 1), generator=generator, device=device)
        rows, columns = rows + shift[0], columns + shift[1]
    return pixels[torch.arange(count, device=device)[:, None, None], rows[:, :, None], columns[:, None, :]]
