"""Read joblib files of unknown origin without running code from them.

A joblib file is a pickle with raw arrays between its opcodes, and a pickle may call any function. This reader allows
dicts, lists, tuples, sets, strings, numbers and NumPy arrays of numbers; it refuses any other name in the file before
the name is imported.
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

BaseUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]

# largest number of bytes: of the decompressed file, and of one array
LIMIT = 4 << 30


class ArrayHeader:
    """The object that joblib pickles in an array's place: shape, order and dtype. The raw numbers follow in the file.

    `__dict__` is filled from the pickle, so that the attributes have joblib's names.
    """

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype = np.dtype(np.uint8)
        self.order = "C"

    def read_array(self, file: BytesIO) -> np.ndarray:
        """Return the array whose numbers come next in `file`."""
        dtype = np.dtype(self.dtype)
        if dtype.hasobject:
            raise pickle.UnpicklingError("it holds an array of Python objects")
        # newer joblib versions align arrays: one byte holds the number of padding bytes that follow it
        if getattr(self, "numpy_array_alignment_bytes", None) is not None:
            file.read(file.read(1)[0])
        count = prod(int(side) for side in self.shape)
        content = file.read(count * dtype.itemsize) if 0 <= count * dtype.itemsize <= LIMIT else b""
        if len(content) != count * dtype.itemsize:
            raise pickle.UnpicklingError("it holds an array that is cut short")
        return np.frombuffer(content, dtype).reshape(self.shape, order="F" if self.order == "F" else "C")


def _make_dtype(*arguments: Any) -> "np.dtype[Any]":
    dtype = np.dtype(*arguments)
    if dtype.hasobject:
        raise pickle.UnpicklingError("it holds an array of Python objects")
    return dtype


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Return `text` as bytes; protocol 2 writes bytes as a call of _codecs.encode."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds bytes in the encoding {encoding}")
    return text.encode("latin1")


def _make_scalar(dtype: "np.dtype[Any]", content: bytes) -> Any:
    return np.frombuffer(content, dtype)[0]


# (module, name) that a file may use -> what is called in its place
ALLOWED: dict[tuple[str, str], Any] = {
    ("joblib.numpy_pickle", "NumpyArrayWrapper"): ArrayHeader,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _make_dtype,
    ("_codecs", "encode"): _encode_latin1,
    **{(builtins, kind.__name__): kind for builtins in ("builtins", "__builtin__") for kind in (set, frozenset)},
    ("collections", "OrderedDict"): dict,
    **{(f"numpy.{core}.multiarray", "scalar"): _make_scalar for core in ("core", "_core")},
}


class RestrictedUnpickler(BaseUnpickler):
    """An unpickler that can call only the names in `ALLOWED`.

    It extends the pure-Python unpickler because the C one reads ahead, past the raw arrays.
    """

    dispatch: ClassVar[dict[int, Any]] = dict(BaseUnpickler.dispatch)
    stack: list[Any]

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file, encoding="latin1")
        self.file = file

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it uses the name {module}.{name}")
        return ALLOWED[module, name]

    def load_build(self) -> None:
        """Run the opcode BUILD, which sets an object's state, for the two kinds of objects that may have one.

        An array header is replaced by its array. Of a dtype only the byte order is checked: big-endian is refused.
        """
        state, instance = self.stack.pop(), self.stack.pop()
        if isinstance(instance, np.dtype) and state[1] in "|<=":
            self.stack.append(instance)
            return
        if not isinstance(instance, ArrayHeader):
            raise pickle.UnpicklingError(f"it sets the state {state!r:.40} of a {type(instance).__name__}")
        instance.__dict__.update({str(key): value for key, value in state.items()})
        self.stack.append(instance.read_array(self.file))

    dispatch[pickle.BUILD[0]] = load_build


def load_joblib(path: Path) -> Any:
    """Return the content of a joblib file, compressed or not.

    Raises Refused if the file is damaged, too large, or holds anything but containers, numbers and arrays of numbers.
    """
    try:
        return RestrictedUnpickler(BytesIO(_read_decompressed(path))).load()
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001 - a file that is no pickle may break the unpickler anywhere
        raise Refused(f"{path} is not a joblib file of arrays and containers: {error}") from None


def _read_decompressed(path: Path) -> bytes:
    """Return the file's bytes, decompressed if they begin as gzip or zlib does."""
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        with gzip.open(BytesIO(content)) as file:
            return _check_size(file.read(LIMIT + 1), path)
    if content[:1] == b"\x78":
        return _check_size(zlib.decompressobj().decompress(content, LIMIT + 1), path)
    return content


def _check_size(content: bytes, path: Path) -> bytes:
    if len(content) > LIMIT:
        raise Refused(f"{path} is more than {LIMIT:,} bytes when decompressed")
    return content
