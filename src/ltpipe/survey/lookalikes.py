"""Pictures that look alike though their files differ: another size, another compression, a burst of one camera.

The difference hash (N. Krawetz, "Kind of Like That", hackerfactor.com, 2013): the picture in grey, 8 rows of 9 pixels;
each of the 64 bits tells whether a pixel is brighter than the one left of it. Here of the centre square.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ltpipe.data.decode import decode

SIDE = 72  # a multiple of 8 rows and of 9 columns
CHUNK = 1024  # pictures that are decoded at once: 16 MB
NEAR = 4  # bits by which two hashes may differ
PLAIN = 6  # with fewer bits of one kind, a hash is that of a plain surface, which many pictures share
# With more pictures, only equal hashes are found: all pairs of 20,000 are 200 million, about two seconds.
ALL_PAIRS = 20_000
BLOCK = 256
MOST = 1000  # pairs that are listed
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def difference_hashes(squares: np.ndarray) -> np.ndarray:
    """Return the hash of each picture, N, uint64. squares: uint8, N x 72 x 72 x 3."""
    grey = (squares @ GREY).reshape(-1, 8, SIDE // 8, 9, SIDE // 9).mean(axis=(2, 4))
    bits = (grey[:, :, 1:] > grey[:, :, :-1]).reshape(-1, 64)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def hash_files(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Return the hash of each file, N, uint64, and whether it is of a single colour, N, bool.

    Every file is decoded once. Raises Refused as ltpipe.data.decode.
    """
    hashes, plain = [], []
    for start in range(0, len(paths), CHUNK):
        squares = decode(paths[start : start + CHUNK], SIDE)
        hashes.append(difference_hashes(squares))
        plain.append((squares == squares[:, :1, :1]).all(axis=(1, 2, 3)))
    return np.concatenate(hashes), np.concatenate(plain)


def find_pairs(hashes: np.ndarray) -> list[tuple[int, int]]:
    """Return up to MOST pairs i < j of pictures that look alike; hashes: N, uint64.

    Up to ALL_PAIRS pictures all pairs are compared; of more, each picture with the first one of an equal hash.
    """
    ones = np.bitwise_count(hashes)
    rows = np.flatnonzero((ones >= PLAIN) & (ones <= 64 - PLAIN))
    found = _near(hashes[rows]) if len(rows) <= ALL_PAIRS else _equal(hashes[rows])
    return [(int(rows[i]), int(rows[j])) for (i, j), _ in zip(found, range(MOST), strict=False)]


def _near(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    for start in range(0, len(hashes), BLOCK):
        block = hashes[start : start + BLOCK, None] ^ hashes[None, start:]
        for i, j in np.argwhere(np.triu(np.bitwise_count(block) <= NEAR, k=1)):
            yield start + int(i), start + int(j)


def _equal(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    for j in np.flatnonzero(first[inverse] != np.arange(len(hashes))):
        yield int(first[inverse][j]), int(j)
