"""k-means inside each class, on one thread per class, so that the clusters do not depend on the number of cores.

They may depend on the processor, because floating-point sums differ in the last bits.
"""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ltpipe.config.spec import Refused
from ltpipe.data.sampling.rows import rows_by_class

EXAMPLES = 5


def cluster_classes(
    features: np.ndarray, labels: np.ndarray, count: int, restarts: int = 10, seed: int = 25, threads: int = 0
) -> np.ndarray:
    """Return the cluster of each image in its class, N, int64; features: N x D, labels: N.

    Class c uses the seed `seed` + c. threads: 0 takes all cores; the clusters do not depend on it.
    Raises Refused if a class has fewer images than clusters, or if a feature is not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
    from tqdm import tqdm

    classes = rows_by_class(labels, np.arange(len(labels)), int(labels.max()) + 1)
    _require_images(classes, count)
    clusters = np.empty(len(labels), dtype=np.int64)

    def cluster(label: int) -> None:
        clusters[classes[label]] = _cluster_class(features[classes[label]], count, restarts, seed + label)

    # OpenMP's limit belongs to a thread, so each thread sets it; BLAS's belongs to the process.
    with (
        warnings.catch_warnings(),  # warning filters belong to the process, so they are not set in the threads
        threadpool_limits(1),
        ThreadPoolExecutor(threads or os.cpu_count() or 1, initializer=threadpool_limits, initargs=(1,)) as pool,
        tqdm(total=len(classes), desc="cluster", disable=None) as bar,
    ):
        # fewer distinct images than clusters: some clusters stay empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        for _ in pool.map(cluster, range(len(classes))):
            bar.update(1)
    return clusters


def _require_images(classes: list[np.ndarray], count: int) -> None:
    small = [f"class {c} has {len(rows)} images" for c, rows in enumerate(classes) if 0 < len(rows) < count]
    if small:
        raise Refused(
            f"cluster: {len(small)} classes are too small for {count} clusters: {', '.join(small[:EXAMPLES])}"
        )


def _cluster_class(features: np.ndarray, count: int, restarts: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    if not len(features):
        return np.empty(0, dtype=np.int64)
    points = np.array(features, dtype=np.float32)
    if not np.isfinite(points).all():
        raise Refused("cluster: features are NaN or infinite")
    clusters: np.ndarray = KMeans(count, n_init=restarts, random_state=seed, copy_x=False).fit_predict(points)
    return clusters
