"""What the modules that run a network share: its options, one layer's output, batches, and a cache of the result.

The cache is `features-<key>.npy` in the folder of the clusters. The key is made of the options, the weights' digest,
the source with its options, each image's name, size in bytes and time of change, the code, and the versions of torch
and Pillow. An image that changed under its name hence counts as another; one whose size and time were both kept does
not (delete the file). Images that are no files of their own (rows of an archive, patches of photographs) have no such
state, and their features are not kept. The number of threads is left out: it moves the last bits only, and shells
differ in it.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ltpipe.data.fetch import Images, room, space
from ltpipe.provenance import code_version
from ltpipe.specs import Refused, Spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# bytes of images that are decoded at once, while as many pass through the network
BLOCK = 1 << 28

# images uint8 B x S x S x 3, on the device -> float32 B x D
Forward = Callable[["Tensor"], "Tensor"]


class Network(Spec):
    """layer: a module's name, dots between levels; its output is flattened. batch: images at once."""

    layer: str = ""
    batch: int = Field(64, gt=0)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def where(self) -> "torch.device":
        """The device. Raises Refused where CUDA is asked for and absent."""
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise Refused("features: device: cuda, but torch finds no CUDA device; choose cpu or auto")
        return torch.device("cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu")


class Passage(NamedTuple):
    """Images that pass through a network: files of the index in order, read at `size`, `batch` of them at once."""

    files: Sequence[str]
    images: Images
    size: int
    batch: int
    device: "torch.device"

    def are_files(self) -> bool:
        """Every image is a file, whose change can be seen."""
        return all((self.images.raw / file).is_file() for file in self.files)

    def key(self, facts: Mapping[str, Any], modules: Collection[str]) -> str:
        """16 hex digits of what the features depend on; facts: JSON-able; modules: code that makes them."""
        import PIL
        import torch

        source = self.images.source
        known = dict(facts) | {"size": self.size, "device": self.device.type, "source": [source.name, source.options]}
        known |= {"torch": torch.__version__, "pillow": PIL.__version__}
        known["code"] = code_version([__name__, *modules, *source.modules()])
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
        for file in self.files:
            digest.update(f"{file}\0{_state(self.images.raw / file)}\n".encode())
        return digest.hexdigest()[:16]

    def features(self, forward: Forward) -> Iterator[np.ndarray]:
        """Features of each batch, float32 B x D, in order."""
        for block in self._blocks():
            for start in range(0, len(block), self.batch):
                yield _run(forward, block[start : start + self.batch], self.device)

    def _blocks(self) -> Iterator[np.ndarray]:
        """The images, whole batches of them; the next block is decoded while one is used."""
        step = max(BLOCK // (self.size * self.size * 3) // self.batch, 1) * self.batch
        parts = [self.files[start : start + step] for start in range(0, len(self.files), step)]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.images.read, parts[0], self.size)
            for part in parts[1:]:
                block, waiting = waiting.result(), pool.submit(self.images.read, part, self.size)
                yield block
            yield waiting.result()


def _state(path: Path) -> tuple[int, int]:
    """Size and time of change."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _run(forward: Forward, pixels: np.ndarray, device: "torch.device") -> np.ndarray:
    """One batch, without gradients and without algorithms that vary from call to call or round more than float32."""
    import torch

    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        found: np.ndarray = forward(torch.tensor(pixels, device=device)).cpu().numpy()
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def computed(
    passage: Passage,
    build: Callable[[], Forward],
    facts: Mapping[str, Any],
    modules: Collection[str],
    cache: Path | None,
) -> np.ndarray:
    """Features, float32, N x D, in the order of the files; facts, modules: see Passage.key.

    With a cache, and images that are files, they are a mapped file in it, made once, by one process while others wait;
    without, they are in memory or, where they are many, mapped from a nameless file. `build` makes the network, and is
    called where it is needed.
    """
    if cache is None or not passage.are_files():
        return _filled(passage, build(), lambda shape: space("features", shape, np.float32, passage.images.raw.parent))
    from filelock import FileLock

    path = cache / f"features-{passage.key(facts, modules)}.npy"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            _save(passage, build(), path)
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def _save(passage: Passage, forward: Forward, path: Path) -> None:
    """Whole at `path`, or not there."""
    unfinished = path.with_name(f".{path.name}.part")

    def mapped(shape: tuple[int, int]) -> np.ndarray:
        room(f"features of {shape[0]} images", 4 * shape[0] * shape[1], path.parent)
        return np.lib.format.open_memmap(unfinished, "w+", np.float32, shape)

    try:
        found = _filled(passage, forward, mapped)
        assert isinstance(found, np.memmap)
        found.flush()
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _filled(passage: Passage, forward: Forward, make: Callable[[tuple[int, int]], np.ndarray]) -> np.ndarray:
    """The array that `make` gives for N x D, D being known from the first batch, full of features."""
    from tqdm import tqdm

    count, done = len(passage.files), 0
    with tqdm(total=count, desc="features", disable=None) as bar:
        for found in passage.features(forward):
            if done == 0:
                features = make((count, found.shape[1]))
            features[done : done + len(found)] = found
            done += len(found)
            bar.update(len(found))
    return features


def module_of(network: "nn.Module", layer: str, where: str) -> "nn.Module":
    """The module `layer` of a network. Raises Refused, naming the valid ones at the level that is wrong."""
    found = network
    for name in layer.split("."):
        children = dict(found.named_children())
        if name not in children:
            raise Refused(f"features: {where}: no layer {layer!r}: no {name!r} among {', '.join(children) or 'none'}")
        found = children[name]
    return found


def heard(network: "nn.Module", module: "nn.Module", given: bool = False) -> Forward:
    """images -> what `module` gives (or is given) in the network's pass, the last time it runs, float32 B x D.

    A copy: the operation after it may work in place.
    """
    found: dict[str, Any] = {}

    def keep(value: Any) -> None:
        found["last"] = value.detach().clone() if hasattr(value, "detach") else value

    if given:
        module.register_forward_pre_hook(lambda _, inputs: keep(inputs[0]))
    else:
        module.register_forward_hook(lambda _, inputs, output: keep(output))

    def forward(images: "Tensor") -> "Tensor":
        found.clear()
        network(images)
        value: Any = found.get("last")
        if getattr(value, "ndim", 0) < 2 or len(value) != len(images):
            raise Refused("features: layer: it gives no output for each image of a batch; choose another")
        return value.flatten(1).float()

    return forward
