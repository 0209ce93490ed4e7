"""Attributes that nobody labelled: the images of each class in k clusters, by k-means over their features.

Tang et al. (ECCV 2022) take the 2,048 features of an ImageNet-pretrained ResNet-50 and scikit-learn's k-means with
k = 6, unseeded, so that their clusters exist in their files only. Here every class has a seed of its own, and each
class is clustered on one thread, so that the clusters do not depend on how many work at once. (They may on the
processor: floating-point sums differ in the last bits.)

features says where they come from:

    attribute    no k-means: the index's column `attribute` is the cluster
    pixels       the source's own images, `pixels.size` high and wide: needs no network, sees colour and layout only
    <path>.npy   a row for each row of the index, or for each row of its official split, in index order
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from ltpipe.atomic import write
from ltpipe.data.fetch import Source
from ltpipe.data.rows import by_class
from ltpipe.data.tables import Table
from ltpipe.specs import Refused, Spec, named

EXAMPLES = 5
CHUNK = 1 << 26


class Pixels(Source):
    """The benchmark's source at another size, and the folder of its files."""

    raw: str = Field("", description="folder of the source's files; default data/01_raw/<name>")


class Clusters(Spec):
    """count: clusters of each class. restarts: k-means runs, of which the tightest counts. cache: folder, or null.

    threads: 0 is as many as there are cores; the clusters are the same.
    """

    features: str = "attribute"
    pixels: Pixels | None = None
    count: int = Field(6, ge=2)
    restarts: int = Field(10, ge=1)
    seed: int = Field(25, ge=0, lt=2**31)
    cache: str | None = "data/05_model_input/clusters"
    threads: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _source(self) -> "Clusters":
        if self.features not in ("attribute", "pixels") and not self.features.endswith(".npy"):
            raise ValueError(f"features: attribute, pixels or a path that ends in .npy, not {self.features!r}")
        if (self.features == "pixels") != (self.pixels is not None):
            raise ValueError(
                "features: pixels goes with the block pixels: {name: <source>, size: 16}, and only with it"
            )
        return self

    def of(self, index: Table, rows: np.ndarray) -> np.ndarray:
        """Cluster of each of `rows`, int64, 0..count-1 in its class."""
        labels = index["label"].to_numpy(dtype=np.int64)[rows]
        if self.features == "attribute":
            return _known(index["attribute"].to_numpy(dtype=np.int64)[rows], labels, self.count)
        features = self._pixels(index, rows) if self.pixels else _read(Path(self.features), len(index), rows)
        settings = {"count": self.count, "restarts": self.restarts, "seed": self.seed}
        if self.cache is None:
            return kmeans(features, labels, **settings, threads=self.threads)
        path = Path(self.cache) / f"{key(features, labels, settings)}.npy"
        if not path.exists():
            _save(path, kmeans(features, labels, **settings, threads=self.threads))
        found: np.ndarray = np.load(path, allow_pickle=False)
        return found.astype(np.int64)

    def _pixels(self, index: Table, rows: np.ndarray) -> np.ndarray:
        """N x (size * size * 3), uint8."""
        assert self.pixels is not None
        source, raw = self.pixels, Path(self.pixels.raw or f"data/01_raw/{self.pixels.name}")
        files = index["file"].iloc[rows].tolist()
        images: np.ndarray = named("ltpipe.data.sources", source.name).read(source.config(), raw, files, source.size)
        return images.reshape(len(images), -1)


def _known(attribute: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    wrong = np.flatnonzero((attribute < 0) | (attribute >= count))
    if len(wrong):
        raise Refused(
            f"clusters: features: attribute needs a cluster of 0..{count - 1} for every image; {len(wrong)} have none "
            f"(attribute {attribute[wrong[0]]}, class {labels[wrong[0]]}); features may also be pixels or a .npy file"
        )
    return attribute


def _read(path: Path, index: int, rows: np.ndarray) -> np.ndarray:
    """The file's features of `rows`, N x D, mapped where all are wanted."""
    try:
        features: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise Refused(f"clusters: cannot read the features {path}: {error}") from None
    if features.ndim != 2 or len(features) not in (index, len(rows)):
        raise Refused(
            f"clusters: {path} is {' x '.join(map(str, features.shape))}, not D numbers for each of the index's "
            f"{index} rows, nor of the {len(rows)} rows of the official split, in index order"
        )
    return features if len(features) == len(rows) else features[rows]


def key(features: np.ndarray, labels: np.ndarray, settings: Mapping[str, Any]) -> str:
    """Name of the clusters of these features: 16 hex digits of what they depend on, scikit-learn's version included."""
    import sklearn

    digest = hashlib.sha256(
        repr((sklearn.__version__, features.shape, features.dtype, sorted(settings.items()))).encode()
    )
    digest.update(labels.tobytes())
    step = max(CHUNK // max(features[:1].nbytes, 1), 1)
    for start in range(0, len(features), step):
        digest.update(features[start : start + step].tobytes())
    return digest.hexdigest()[:16]


def _save(path: Path, clusters: np.ndarray) -> None:
    from io import BytesIO

    buffer = BytesIO()
    np.save(buffer, clusters.astype(np.uint8 if clusters.max(initial=0) < 256 else np.int64), allow_pickle=False)
    write(path, buffer.getvalue())


def kmeans(
    features: np.ndarray, labels: np.ndarray, count: int, restarts: int = 10, seed: int = 25, threads: int = 0
) -> np.ndarray:
    """Cluster of each image in its class, N, int64; features: N x D, labels: N. Class c has the seed `seed` + c.

    Raises Refused where a class has fewer images than clusters.
    """
    import os
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    from tqdm import tqdm

    classes = by_class(labels, np.arange(len(labels)), int(labels.max()) + 1)
    small = [f"class {c} has {len(rows)} images" for c, rows in enumerate(classes) if len(rows) < count]
    if small:
        raise Refused(
            f"clusters: {len(small)} classes are too small for {count} clusters: {', '.join(small[:EXAMPLES])}"
        )
    found = np.empty(len(labels), dtype=np.int64)

    def one(label: int) -> None:
        found[classes[label]] = _one(features[classes[label]], count, restarts, seed + label)

    # OpenMP's limit is a thread's own, hence set in each; BLAS's is the process's
    workers = threads or os.cpu_count() or 1
    with (
        warnings.catch_warnings(),  # the filters are the process's, hence not in the threads
        threadpool_limits(1),
        ThreadPoolExecutor(workers, initializer=threadpool_limits, initargs=(1,)) as pool,
        tqdm(total=len(classes), desc="cluster", disable=None) as bar,
    ):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different images than clusters: some stay empty
        for _ in pool.map(one, range(len(classes))):
            bar.update(1)
    return found


def _one(features: np.ndarray, count: int, restarts: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    model = KMeans(count, n_init=restarts, random_state=seed, copy_x=False)
    found: np.ndarray = model.fit_predict(np.array(features, dtype=np.float32))
    return found
