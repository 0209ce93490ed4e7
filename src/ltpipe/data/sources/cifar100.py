"""CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 in 100 fine classes, from the official binary archive.

The images are in the order of the files: train.bin, then test.bin (on this order see ltpipe.data.acquire.cifar_binary
and the source cifar10). The label is the fine class. The coarse class is left out: it is a superclass, not an attribute
of an image.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ltpipe.config.spec import Spec
from ltpipe.data.acquire import cifar_binary
from ltpipe.data.acquire.download import Remote
from ltpipe.storage.table import Table

NOTICE = """CIFAR-100, A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009,
https://www.cs.toronto.edu/~kriz/cifar_binary.html. The page states no licence and asks that the report be cited.
"""

LAYOUT = cifar_binary.Layout(
    remote=Remote(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz", "md5:03b5dce01913d631647c71ecec9e9cb8", 168_513_733
    ),
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    names="fine_label_names.txt",
    label_bytes=2,
)


class Config(Spec):
    """No options."""


def build_index(config: Config, raw: Path) -> Table:
    """Return the index of 60,000 images; download the archive (169 MB) if it is missing."""
    return cifar_binary.build_cifar_index(LAYOUT, raw)


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the images of `files`, uint8, N x 32 x 32 x 3. Raises Refused if size is not 32."""
    return cifar_binary.read_cifar_images(LAYOUT, raw, files, size)
