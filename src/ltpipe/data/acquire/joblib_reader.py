"""joblib files of strangers, read without running anything in them.

A joblib file is a pickle with raw arrays between its opcodes, and a pickle may call any function. This reader knows
dicts, lists, tuples, sets, strings, numbers and NumPy arrays of numbers; any other name in the file is refused before
it is looked up.
"""

import gzip
import pickle
import zlib
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ltpipe.config.spec import Refused

Base: Any = pickle._Unpickler  # type: ignore[attr-defined]

# bytes after decompression, and elements of one array
LIMIT = 4 << 30


class Stored:
    """What joblib writes in an array's place: its shape, order and dtype; the numbers follow in the file."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype = np.dtype(np.uint8)
        self.order = "C"

    def read(self, file: BytesIO) -> np.ndarray:
        """The array that follows in `file`."""
        dtype = np.dtype(self.dtype)
        if dtype.hasobject:
            raise pickle.UnpicklingError("an array of Python objects")
        if getattr(self, "numpy_array_alignment_bytes", None) is not None:
            file.read(file.read(1)[0])
        count = prod(int(side) for side in self.shape)
        content = file.read(count * dtype.itemsize) if 0 <= count * dtype.itemsize <= LIMIT else b""
        if len(content) != count * dtype.itemsize:
            raise pickle.UnpicklingError("an array that is cut short")
        return np.frombuffer(content, dtype).reshape(self.shape, order="F" if self.order == "F" else "C")


def _dtype(*arguments: Any) -> "np.dtype[Any]":
    found = np.dtype(*arguments)
    if found.hasobject:
        raise pickle.UnpicklingError("an array of Python objects")
    return found


def _latin1(text: str, encoding: str) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding}")
    return text.encode("latin1")


def _scalar(dtype: "np.dtype[Any]", content: bytes) -> Any:
    return np.frombuffer(content, dtype)[0]


# every name that such a file may use, and what stands for it
NAMES: dict[tuple[str, str], Any] = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): Stored,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
    **{(builtins, kind.__name__): kind for builtins in ("builtins", "__builtin__") for kind in (set, frozenset)},
    ("collections", "OrderedDict"): dict,
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}


class Reader(Base):
    """The pure-Python unpickler (its reads do not run ahead of the raw arrays), with `NAMES` alone to call."""

    dispatch: ClassVar[dict[int, Any]] = dict(Base.dispatch)
    stack: list[Any]

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file, encoding="latin1")
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in NAMES:
            raise pickle.UnpicklingError(f"the name {module}.{name}")
        return NAMES[module, name]

    def load_build(self) -> None:
        """An array's stand-in becomes the array; of a dtype the byte order is checked; nothing else has a state."""
        state, stored = self.stack.pop(), self.stack.pop()
        if isinstance(stored, np.dtype) and state[1] in "|<=":
            self.stack.append(stored)
            return
        if not isinstance(stored, Stored):
            raise pickle.UnpicklingError(f"the state {state!r:.40} of a {type(stored).__name__}")
        stored.__dict__.update({str(key): value for key, value in state.items()})
        self.stack.append(stored.read(self.file))

    dispatch[pickle.BUILD[0]] = load_build


def load(path: Path) -> Any:
    """The content of a joblib file, compressed or not."""
    try:
        return Reader(BytesIO(_bytes(path))).load()
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - a file that is no pickle may break the unpickler anywhere
        raise Refused(f"{path} is not a joblib file of arrays and containers: it holds {error}") from None


def _bytes(path: Path) -> bytes:
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        with gzip.open(BytesIO(content)) as file:
            return _bounded(file.read(LIMIT + 1), path)
    if content[:1] == b"\x78":
        return _bounded(zlib.decompressobj().decompress(content, LIMIT + 1), path)
    return content


def _bounded(content: bytes, path: Path) -> bytes:
    if len(content) > LIMIT:
        raise Refused(f"{path} is more than {LIMIT:,} bytes when unpacked")
    return content
