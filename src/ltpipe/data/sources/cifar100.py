"""CIFAR-100: 50,000 training and 10,000 test images of 32 x 32 in 100 fine classes, from the official binary archive.

Order: train.bin, then test.bin, as in the files. The label is the fine one; the coarse one is not an attribute of an
image but a superclass, and is left out. On the order see ltpipe.data.acquire.cifar_binary and the source cifar10.
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
    labels=2,
)


class Config(Spec):
    """No options."""


def build_index(config: Config, raw: Path) -> Table:
    """Index of 60,000 images; the archive (169 MB) is fetched where it is not there."""
    return cifar_binary.index(LAYOUT, raw)


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """The images of `files`; size must be 32."""
    return cifar_binary.images(LAYOUT, raw, files, size)
