"""Attributes that nobody labelled: the images of each class in k clusters, by k-means over their features.

Tang et al. (ECCV 2022) take the 2,048 features of an ImageNet-pretrained ResNet-50 and scikit-learn's k-means with
k = 6, unseeded, so that their clusters exist in their files only. Here every class has a seed of its own, and each
class is clustered on one thread, so that the clusters do not depend on how many work at once. (They may on the
processor: floating-point sums differ in the last bits.)

Features come from a module of ltpipe.features: attribute (no k-means), pixels, file, torchvision, checkpoint.
"""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from ltpipe.atomic import write
from ltpipe.data.fetch import Images
from ltpipe.data.rows import by_class
from ltpipe.data.tables import Table
from ltpipe.specs import Refused, Spec, named

PACKAGE = "ltpipe.features"
EXAMPLES = 5
CHUNK = 1 << 26


class Features(Spec):
    """What is clustered: `name` is a module of ltpipe.features, `options` its Config block."""

    name: str = "attribute"
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _exists(cls, name: str) -> str:
        named(PACKAGE, name)
        return name

    @model_validator(mode="after")
    def _options(self) -> "Features":
        self.config()
        return self

    def config(self) -> Spec:
        """The options as the module's own Config block."""
        config: Spec = named(PACKAGE, self.name).Config.model_validate(self.options)
        return config

    def modules(self) -> frozenset[str]:
        return frozenset({f"{PACKAGE}.{self.name}"})

    def files(self) -> frozenset[str]:
        return self.config().files()

    def of(self, index: Table, rows: np.ndarray, images: Images, cache: Path | None) -> np.ndarray:
        """Features of `rows`, N x D, or their clusters, N (see ltpipe.features)."""
        found: np.ndarray = named(PACKAGE, self.name).extract(self.config(), index, rows, images, cache)
        if len(found) != len(rows) or found.ndim > 2:
            raise TypeError(f"{PACKAGE}.{self.name}.extract: {found.shape} for {len(rows)} images")
        return found


class Clusters(Spec):
    """count: clusters of each class. restarts: k-means runs, of which the tightest counts.

    cache: folder for clusters and for what a network gave, or null. threads: 0 is as many as there are cores; the
    clusters are the same.
    """

    features: Features = Field(default_factory=Features)
    count: int = Field(6, ge=2)
    restarts: int = Field(10, ge=1)
    seed: int = Field(25, ge=0, lt=2**31)
    cache: str | None = "data/05_model_input/clusters"
    threads: int = Field(0, ge=0)

    def of(self, index: Table, rows: np.ndarray, images: Images) -> np.ndarray:
        """Cluster of each of `rows`, int64, 0..count-1 in its class."""
        labels = index["label"].to_numpy(dtype=np.int64)[rows]
        cache = Path(self.cache) if self.cache is not None else None
        features = self.features.of(index, rows, images, cache)
        if features.ndim == 1:
            return _known(features, labels, self.count, self.features.name)
        settings = {"count": self.count, "restarts": self.restarts, "seed": self.seed}
        if cache is None:
            return kmeans(features, labels, **settings, threads=self.threads)
        path = cache / f"{key(features, labels, settings)}.npy"
        if not path.exists():
            _save(path, kmeans(features, labels, **settings, threads=self.threads))
        found: np.ndarray = np.load(path, allow_pickle=False)
        return found.astype(np.int64)


def _known(clusters: np.ndarray, labels: np.ndarray, count: int, name: str) -> np.ndarray:
    wrong = np.flatnonzero((clusters < 0) | (clusters >= count))
    if len(wrong):
        raise Refused(
            f"clusters: features: {name} needs a cluster of 0..{count - 1} for every image; {len(wrong)} have none "
            f"({name} {clusters[wrong[0]]}, class {labels[wrong[0]]}); features may also be pixels, file, torchvision "
            "or checkpoint"
        )
    return clusters


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

    Raises Refused where a class has fewer images than clusters, or where a feature is not finite.
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

    own = np.array(features, dtype=np.float32)
    if not np.isfinite(own).all():
        raise Refused("clusters: features are NaN or infinite")
    found: np.ndarray = KMeans(count, n_init=restarts, random_state=seed, copy_x=False).fit_predict(own)
    return found
