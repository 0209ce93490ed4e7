"""Training images from whole pictures: torchvision's transforms, in worker processes ahead of the step.

The random numbers of an image are a function of the seed and of its position (phase, epoch, step, stream, place in the
batch). So the number of workers changes nothing, and nothing has to be saved for a resume.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ltpipe.interface.phases import Augment
from ltpipe.training import determinism
from ltpipe.training.signals import spare_worker

if TYPE_CHECKING:
    from PIL.Image import Image

# Row of an image in the packed array of squares -> its whole picture, upright, in RGB. It has to be picklable.
Opener = Callable[[int], "Image"]
# step, stream, place in the stream's batch, and row of the image
Place = tuple[int, int, int, int]


def build_transform(augment: Augment, size: int) -> Callable[["Image"], "Image"]:
    """Return torchvision's RandomResizedCrop, RandomHorizontalFlip and ColorJitter, as `augment` says."""
    from torchvision import transforms

    steps: list[Any] = [transforms.RandomResizedCrop(size, scale=augment.resized_crop)]
    if augment.flip:
        steps.append(transforms.RandomHorizontalFlip())
    if augment.colour_jitter:
        steps.append(transforms.ColorJitter(*augment.colour_jitter))
    transform: Callable[[Image], Image] = transforms.Compose(steps)
    return transform


class Crops(Dataset[np.ndarray]):
    """The augmented image of each place of an epoch, uint8 size x size x 3. key: see `prefetch`.

    Arrays, because a worker sends them through a pipe. It would put tensors into shared memory, of which a container
    has 64 MB: too little for the batches of a few workers, and the training would end with "Bus error".
    """

    def __init__(self, opener: Opener, augment: Augment, size: int, key: Sequence[object]) -> None:
        self.opener, self.key, self.transform = opener, key, build_transform(augment, size)

    def __getitem__(self, place: Place) -> np.ndarray:
        *position, row = place
        picture = self.opener(row)
        with determinism.seeded(*self.key, *position, "picture"):
            return np.array(self.transform(picture))


@dataclass(frozen=True)
class Pictures:
    """The whole pictures of a training split.

    rows: of each image in the packed array of squares, N. size: of the images that are made, in pixels. workers: see
    `Schedule`.
    """

    opener: Opener
    rows: np.ndarray
    size: int
    workers: int | None

    def prefetch(
        self, steps: list[list[Tensor]], start: int, augment: Augment, key: Sequence[object], device: torch.device
    ) -> Iterator[tuple[int, list[Tensor], list[Tensor]]]:
        """Yield number, rows and pixels of each step from `start` on: see SplitImages.prefetch, but cropped already.

        key: seed, phase and epoch, and what the crops are for, if not for the steps.
        """
        places = [self._places(number, step) for number, step in enumerate(steps[start:], start)]
        loader: DataLoader[np.ndarray] = DataLoader(
            Crops(self.opener, augment, self.size, key),
            batch_sampler=places,
            num_workers=min(_cores() if self.workers is None else self.workers, len(places)),
            collate_fn=np.stack,
            worker_init_fn=spare_worker,
            generator=torch.Generator(),  # the global one, which the loader would otherwise advance, is the method's
        )
        for number, batch in enumerate(loader, start):
            whole = torch.from_numpy(batch)
            pinned = whole.pin_memory() if device.type == "cuda" else whole
            pixels = pinned.to(device, non_blocking=True).split([len(rows) for rows in steps[number]])
            yield number, steps[number], list(pixels)

    def _places(self, number: int, step: list[Tensor]) -> list[Place]:
        """Return the places of a step, stream after stream."""
        return [
            (number, stream, place, row)
            for stream, rows in enumerate(step)
            for place, row in enumerate(self.rows[rows.cpu().numpy()].tolist())
        ]


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
