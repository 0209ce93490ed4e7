"""Run a network over images batch by batch, and cache the result.

The cache file is `features-<key>.npy`. The key depends on the options, the digest of the weights, the source with its
options, the name, size, times and inode of every image, the code, and the versions of torch and Pillow. So an image
that changed under its old name is noticed.
Features of images that are no files of their own (rows of an archive, patches of photographs) are not cached, because
a change would not be seen. The number of threads is not part of the key: it changes the last bits only.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ltpipe.config.spec import Refused, Spec
from ltpipe.data.arrays import allocate, require_disk_space
from ltpipe.data.source import SourceImages
from ltpipe.extraction.layer import Forward
from ltpipe.storage.provenance import code_version

if TYPE_CHECKING:
    import torch

# bytes of images that are decoded at once, while the block before passes through the network
BLOCK = 1 << 28


class Given(NamedTuple):
    """What a feature module may use beside its options.

    cache: folder for results that are expensive to compute, or None. checkpoint: content of the checkpoint that the
    block's `start_from` names, or None.
    """

    images: SourceImages
    cache: Path | None
    checkpoint: bytes | None = None


class NetworkOptions(Spec):
    """Options of every feature module that runs a network."""

    layer: str = Field("", description="name of a module, dots between levels; its output is flattened")
    batch: int = Field(64, gt=0, description="images of one forward pass")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA if there is a device")

    def torch_device(self) -> "torch.device":
        """Return the device. Raises Refused if CUDA is asked for and absent."""
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise Refused("features: device: cuda, but torch finds no CUDA device; choose cpu or auto")
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")


class Passage(NamedTuple):
    """Images on their way through a network: files of the index in order, read at `size`, `batch` at once."""

    files: Sequence[str]
    images: SourceImages
    size: int
    batch: int
    device: "torch.device"

    def are_files(self) -> bool:
        """Tell whether every image is a file of its own, whose change can be seen."""
        return all((self.images.raw / file).is_file() for file in self.files)

    def key(self, facts: Mapping[str, Any], modules: Collection[str]) -> str:
        """Return 16 hex digits of everything the features depend on; facts: JSON-able; modules: the code."""
        import PIL
        import torch

        source = self.images.source
        known = dict(facts) | {"size": self.size, "device": self.device.type, "source": [source.name, source.options]}
        known |= {"torch": torch.__version__, "pillow": PIL.__version__}
        known["code"] = code_version([__name__, *modules, *source.modules()])
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
        for file in self.files:
            digest.update(f"{file}\0{_file_state(self.images.raw / file)}\n".encode())
        return digest.hexdigest()[:16]

    def features(self, forward: Forward) -> Iterator[np.ndarray]:
        """Yield the features of each batch in order, float32 B x D."""
        for block in self._blocks():
            for start in range(0, len(block), self.batch):
                yield _forward(forward, block[start : start + self.batch], self.device)

    def _blocks(self) -> Iterator[np.ndarray]:
        """Yield the images in blocks of whole batches; the next block is decoded while this one is used."""
        step = max(BLOCK // (self.size * self.size * 3) // self.batch, 1) * self.batch
        parts = [self.files[start : start + step] for start in range(0, len(self.files), step)]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.images.read, parts[0], self.size)
            for part in parts[1:]:
                block, waiting = waiting.result(), pool.submit(self.images.read, part, self.size)
                yield block
            yield waiting.result()


def _file_state(path: Path) -> tuple[int, ...]:
    """Return what changes with a file's content; a program can set the time of modification back, not the others."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _forward(forward: Forward, pixels: np.ndarray, device: "torch.device") -> np.ndarray:
    """Run one batch without gradients, in full float32 precision, with algorithms that repeat their result."""
    import torch

    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        features: np.ndarray = forward(torch.tensor(pixels, device=device)).cpu().numpy()
    return features


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compute_features(
    passage: Passage,
    build: Callable[[], Forward],
    facts: Mapping[str, Any],
    modules: Collection[str],
    cache: Path | None,
) -> np.ndarray:
    """Return the features of the passage's files in order, float32, N x D; facts, modules: see Passage.key.

    With a cache, and images that are files, the result is a mapped file of the cache; one process makes it while
    others wait. Otherwise it is in memory or, if large, mapped from an unnamed file. `build` makes the network; it is
    called only if it is needed.
    """
    folder = passage.images.raw.parent
    if cache is None or not passage.are_files():
        return _fill(passage, build(), lambda shape: allocate("features", shape, np.float32, folder))
    from filelock import FileLock

    path = cache / f"features-{passage.key(facts, modules)}.npy"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            _save(passage, build(), path)
    features: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return features


def _save(passage: Passage, forward: Forward, path: Path) -> None:
    """Write the features to `path`; the file is complete or absent."""
    unfinished = path.with_name(f".{path.name}.part")

    def mapped(shape: tuple[int, int]) -> np.ndarray:
        require_disk_space(f"features of {shape[0]} images", 4 * shape[0] * shape[1], path.parent)
        return np.lib.format.open_memmap(unfinished, "w+", np.float32, shape)

    try:
        features = _fill(passage, forward, mapped)
        assert isinstance(features, np.memmap)
        features.flush()
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _fill(passage: Passage, forward: Forward, make: Callable[[tuple[int, int]], np.ndarray]) -> np.ndarray:
    """Return the array from make((N, D)) filled with features; D is known after the first batch."""
    from tqdm import tqdm

    count, done = len(passage.files), 0
    with tqdm(total=count, desc="features", disable=None) as bar:
        for batch in passage.features(forward):
            if done == 0:
                features = make((count, batch.shape[1]))
            features[done : done + len(batch)] = batch
            done += len(batch)
            bar.update(len(batch))
    return features
