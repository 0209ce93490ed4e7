"""Stage `cluster`: give each image the cluster of its features as its attribute, by k-means inside its class.

Tang et al. (ECCV 2022) take the 2,048 features of an ImageNet-pretrained ResNet-50 and scikit-learn's k-means with
k = 6. Their k-means has no seed, so their clusters exist only in their files. Here every class has its own seed.
"""

import hashlib
import re
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator, model_validator

from ltpipe.clustering.kmeans import cluster_classes
from ltpipe.config.spec import MenuItem, Spec
from ltpipe.data.sampling.rows import official_rows
from ltpipe.data.source import Source, SourceImages
from ltpipe.extraction.passage import Given
from ltpipe.storage.atomic import write_atomically
from ltpipe.storage.provenance import code_version
from ltpipe.storage.table import Table

CELL = re.compile(r"\w+\.\w+\.\w+")
CHUNK = 1 << 26  # bytes of features that are hashed at once


class Features(MenuItem):
    """The features that are clustered."""

    menu: ClassVar[str] = "ltpipe.features"

    name: str = Field(description="a module of ltpipe.features")


class Clusters(Spec):
    """How attributes are made: k-means over features, inside each class. Leave it out if images have attributes."""

    features: Features = Field(description="what is clustered: {name, options}")
    start_from: str | None = Field(
        None, description="cell whose checkpoint the features use, <benchmark>.<run>.<seed> of another benchmark"
    )
    official: str = Field("train", description="official split of the source whose images are clustered")
    count: int = Field(6, ge=2, description="clusters of each class")
    restarts: int = Field(10, ge=1, description="k-means runs; the one with the smallest sum of squares is taken")
    seed: int = Field(25, ge=0, lt=2**31, description="class c uses seed + c")
    cache: str | None = Field(
        "data/05_model_input/clusters",
        description="folder that keeps clusters and a network's features for later runs; null: none",
    )
    threads: int = Field(0, ge=0, description="0: one for each core; the clusters do not depend on it")

    @field_validator("start_from")
    @classmethod
    def _check_cell(cls, cell: str | None) -> str | None:
        if cell is not None and not CELL.fullmatch(cell):
            raise ValueError(f"a cell, <benchmark>.<run>.<seed>, not {cell!r}")
        return cell

    @model_validator(mode="after")
    def _check_checkpoint(self) -> "Clusters":
        takes = getattr(self.features.module(), "TAKES_CHECKPOINT", False)
        path = getattr(self.features.config(), "path", "") if takes else ""
        if self.start_from and not takes:
            raise ValueError(f"features {self.features.name} use no checkpoint: leave start_from out")
        if takes and bool(self.start_from) == bool(path):
            raise ValueError(f"features {self.features.name} use one checkpoint: state start_from or options.path")
        return self


def cluster(index: Table, source: Source, raw: Path, clusters: Clusters, checkpoint: bytes | None = None) -> Table:
    """Return the index with the cluster of each image of the official split as its `attribute`, 0..count-1; else -1.

    checkpoint: content of the checkpoint that `start_from` names.
    """
    rows = official_rows(index, clusters.official)
    cache = Path(clusters.cache) if clusters.cache is not None else None
    given = Given(SourceImages(source, raw), cache, checkpoint)
    module = clusters.features.module()
    features: np.ndarray = module.extract(clusters.features.config(), index, rows, given)
    if len(features) != len(rows) or features.ndim != 2:
        raise TypeError(f"{module.__name__}.extract: {features.shape} for {len(rows)} images")
    attribute = np.full(len(index), -1)
    attribute[rows] = cached_clusters(features, index["label"].to_numpy(dtype=np.int64)[rows], clusters, cache)
    return index.assign(attribute=attribute)


def cached_clusters(features: np.ndarray, labels: np.ndarray, clusters: Clusters, cache: Path | None) -> np.ndarray:
    """Return the cluster of each image in its class, N, int64, from the cache if it has them; features: N x D."""
    settings = {"count": clusters.count, "restarts": clusters.restarts, "seed": clusters.seed}
    if cache is None:
        return cluster_classes(features, labels, **settings, threads=clusters.threads)
    path = cache / f"{cache_key(features, labels, settings)}.npy"
    if not path.exists():
        _save_clusters(path, cluster_classes(features, labels, **settings, threads=clusters.threads))
    saved: np.ndarray = np.load(path, allow_pickle=False)
    return saved.astype(np.int64)


def cache_key(features: np.ndarray, labels: np.ndarray, settings: Mapping[str, Any]) -> str:
    """Return 16 hex digits of a hash of the features, labels, settings, the code and scikit-learn's version."""
    import sklearn

    code = code_version(["ltpipe.clustering.kmeans"])
    facts = (sklearn.__version__, code, features.shape, features.dtype, sorted(settings.items()))
    digest = hashlib.sha256(repr(facts).encode())
    digest.update(labels.tobytes())
    step = max(CHUNK // max(features[:1].nbytes, 1), 1)
    for start in range(0, len(features), step):
        digest.update(features[start : start + step].tobytes())
    return digest.hexdigest()[:16]


def _save_clusters(path: Path, clusters: np.ndarray) -> None:
    buffer = BytesIO()
    # one byte per image if it is enough
    np.save(buffer, clusters.astype(np.uint8 if clusters.max(initial=0) < 256 else np.int64), allow_pickle=False)
    write_atomically(path, buffer.getvalue())
