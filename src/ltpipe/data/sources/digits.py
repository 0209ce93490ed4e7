"""Handwritten digits under six colour schemes: real images with an attribute that is known exactly.

1,797 digits of 8 x 8 pixels (scikit-learn's load_digits) are drawn at 16 x 16 in each of six schemes (ink on paper),
with Gaussian pixel noise: 10,782 images. The scheme is the attribute that a GLT split then makes unbalanced. In
ImageNet-GLT (Tang et al., ECCV 2022) the attribute is a k-means cluster; here it is ground truth.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.storage.table import Table

NOTICE = """Optical Recognition of Handwritten Digits (test part), E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0. Shipped with scikit-learn (BSD-3-Clause).
Coloured, enlarged and given noise by ltpipe.
"""

SIZE = 16

# ink and paper of each scheme, RGB in 0..255; a scheme differs from the next in hue, in contrast or in polarity
SCHEMES = np.array(
    [
        [[230, 60, 60], [40, 20, 20]],
        [[70, 220, 80], [20, 50, 20]],
        [[80, 110, 240], [20, 20, 60]],
        [[40, 40, 20], [230, 220, 90]],
        [[120, 30, 110], [235, 170, 225]],
        [[20, 70, 80], [120, 205, 215]],
    ],
    dtype=np.float64,
)


class Config(Spec):
    """The noise of the images."""

    noise: float = Field(40.0, ge=0, description="standard deviation of the pixel noise, in 0..255 units")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of the noise")


def colour_digit(ink: np.ndarray, noise: float, random: np.random.RandomState) -> np.ndarray:
    """Return one digit in every scheme, uint8, 6 x 2H x 2W x 3.

    ink: H x W in 0..1. Every pixel becomes a block of 2 x 2; the noise is drawn for the enlarged image.
    """
    large = ink.repeat(2, axis=0).repeat(2, axis=1)[None, :, :, None]
    inks, papers = SCHEMES[:, 0, None, None, :], SCHEMES[:, 1, None, None, :]
    # interpolate between paper (ink 0) and ink (1), for all schemes at once: 6 x 2H x 2W x 3
    clean = large * inks + (1 - large) * papers
    return np.clip(np.rint(clean + noise * random.standard_normal(clean.shape)), 0, 255).astype(np.uint8)


def build_index(config: Config, raw: Path) -> Table:
    """Return the index of 10,782 images; nothing is downloaded."""
    import pandas as pd
    from sklearn.datasets import load_digits

    labels = load_digits(return_X_y=True)[1]
    # all schemes of digit 0, then those of digit 1, ...: the order in which read_images draws
    number, scheme = np.divmod(np.arange(len(labels) * len(SCHEMES)), len(SCHEMES))
    return pd.DataFrame(
        {
            "image": [f"digit{n:04d}-scheme{s}" for n, s in zip(number, scheme, strict=True)],
            "source": [f"digit{n:04d}" for n in number],
            "file": [str(row) for row in range(len(number))],
            "label": labels[number].astype(np.int64),
            "class_name": [str(label) for label in labels[number]],
            "attribute": scheme.astype(np.int64),
            "official": "",
        }
    )


def read_images(config: Config, raw: Path, files: Sequence[str], size: int) -> np.ndarray:
    """Return the images of `files`, uint8, N x 16 x 16 x 3. Raises Refused if `size` is not 16.

    All images are drawn, so that the noise of an image does not depend on which images are requested.
    """
    from sklearn.datasets import load_digits

    if size != SIZE:
        raise Refused(f"source digits draws images of {SIZE} x {SIZE}; size cannot be {size}")
    # not Generator: the stream of RandomState is frozen (NumPy NEP 19), so the images are the same in any version
    random = np.random.RandomState(config.seed)
    digits = load_digits(return_X_y=True)[0]
    images = np.concatenate([colour_digit(d.reshape(8, 8) / 16.0, config.noise, random) for d in digits])
    return images[[int(file) for file in files]]
