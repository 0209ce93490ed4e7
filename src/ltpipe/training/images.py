"""The images of one split: on the device, or read from their file batch by batch while the step before trains."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PREFETCH = 2  # batches that are read before they are needed
CHUNK = 4096  # images that are copied to the device at once


@dataclass(frozen=True)
class SplitImages:
    """One split. labels: N, on the device. groups: N, index into GROUPS. pixels: uint8, N x H x W x 3.

    Pixels are on the device; or they stay in `store` (a larger array, mapped from its file) at `rows`, and are copied
    to the device batch by batch. The content of a batch is the same.
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
    ) -> "SplitImages":
        """Return rows `rows` of `store`, on the device if they are at most `resident` bytes."""
        shape = (len(rows), *store.shape[1:])
        pixels = None
        if len(rows) * store[:1].nbytes <= resident:
            pixels = torch.empty(shape, dtype=torch.uint8, device=device)
            for start in range(0, len(rows), CHUNK):  # in chunks, so that the split is never in memory twice
                pixels[start : start + CHUNK] = torch.from_numpy(store[rows[start : start + CHUNK]])
        return cls(torch.tensor(labels, device=device), torch.tensor(groups, device=device), pixels, store, rows)

    @property
    def device(self) -> torch.device:
        """The device on which batches are made."""
        return self.labels.device

    def chunks(self, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the whole split in order, `size` images at a time: pixels, labels, rows."""
        rows = torch.arange(len(self.labels), device=self.device)
        for _, (part,), (pixels,) in self.prefetch([[part] for part in rows.split(size)], 0):
            yield pixels, self.labels[part], part

    def prefetch(self, steps: list[list[Tensor]], start: int) -> Iterator[tuple[int, list[Tensor], list[Tensor]]]:
        """Yield number, rows and pixels of each step from `start` on; stored pixels are read in advance."""
        if self.pixels is not None:
            for step in range(start, len(steps)):
                yield step, steps[step], [self.pixels[rows] for rows in steps[step]]
            return
        # Rows are converted before anything is queued on the device: a copy from it would wait for the queue.
        stored = [[self.rows[rows.cpu().numpy()] for rows in step] for step in steps]
        waiting: deque[Future[list[Tensor]]] = deque()
        pool = ThreadPoolExecutor(1)
        try:
            for step in range(start, len(steps)):
                while len(waiting) <= PREFETCH and step + len(waiting) < len(steps):
                    waiting.append(pool.submit(self._read, stored[step + len(waiting)]))
                pixels = [part.to(self.device, non_blocking=True) for part in waiting.popleft().result()]
                yield step, steps[step], pixels
        finally:
            pool.shutdown(cancel_futures=True)

    def _read(self, stored: list[np.ndarray]) -> list[Tensor]:
        """Read rows of the store; for a GPU into pinned memory, from which it copies without waiting."""
        parts = [torch.from_numpy(self.store[rows]) for rows in stored]
        return [part.pin_memory() for part in parts] if self.device.type == "cuda" else parts
