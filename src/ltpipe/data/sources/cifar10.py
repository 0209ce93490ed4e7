"""CIFAR-10: 50,000 training and 10,000 test images of 32 x 32 in ten classes, from the official binary archive.

The images are in the order of the files: data_batch_1 to data_batch_5, then test_batch. Published long-tailed subsets
are defined on the order of the python archive; that both orders are the same cannot be checked here (see
ltpipe.data.acquire.cifar_binary).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltpipe.config.spec import Spec
from ltpipe.data.acquire import cifar_binary
from ltpipe.data.acquire.download import Remote
from ltpipe.storage.table import Table

NOTICE = """CIFAR-10, A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar_binary.html. The page states no licence and asks that the report be cited.
"""

LAYOUT = cifar_binary.Layout(
    remote=Remote(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", "md5:c32a1d4ab5d03f1284b67883e8d87530", 170_052_171
    ),
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    test="test_batch.bin",
    names="batches.meta.txt",
    label_bytes=1,
)


class Config(Spec):
    """No options."""


def build_index(config: Config, raw: Path) -> Table:
    """Return the index of 60,000 images; download the archive (170 MB) if it is missing."""
    return cifar_binary.build_cifar_index(LAYOUT, raw)


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the images of `files`, uint8, N x 32 x 32 x 3. Raises Refused if size is not 32."""
    return cifar_binary.read_cifar_images(LAYOUT, raw, files, size)
