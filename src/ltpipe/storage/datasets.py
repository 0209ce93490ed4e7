"""Kedro datasets, one class for each file format.

Only the catalog uses them; nodes get the loaded values. Files are written atomically: a save that fails or is killed
leaves the old file as it was.
"""

import json
import os
import shutil
import tempfile
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from ltpipe.storage.atomic import write_atomically


class File(AbstractDataset[Any, Any]):
    """A file of bytes. A subclass adds a format by `decode` and `encode`; dvc_yaml.py reads `metadata`."""

    must_exist = True  # a node that reads it cannot do without

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        return self.decode(self.path.read_bytes())

    def save(self, data: Any) -> None:
        write_atomically(self.path, self.encode(data))

    def decode(self, content: bytes) -> Any:
        """Return the value that the file's bytes stand for."""
        return content

    def encode(self, data: Any) -> bytes:
        """Return the file's bytes for `data`. Equal data must give equal bytes, because DVC compares file hashes."""
        return bytes(data)

    def _exists(self) -> bool:
        return self.path.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self.path)}


class OptionalFile(File):
    """Like File, but loads None if the file does not exist."""

    must_exist = False

    def load(self) -> Any:
        return super().load() if self.path.exists() else None


class Text(File):
    """UTF-8 text."""

    def decode(self, content: bytes) -> str:
        return content.decode()

    def encode(self, data: str) -> bytes:
        return data.encode()


class Json(File):
    """Strict JSON (NaN and infinity are errors) with sorted keys."""

    def decode(self, content: bytes) -> Any:
        return json.loads(content)

    def encode(self, data: Any) -> bytes:
        return (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


class OptionalJson(OptionalFile, Json):
    """Like Json, but loads None if the file does not exist."""


class Record(OptionalJson):
    """JSON on which no result depends: None also if the file cannot be read."""

    def decode(self, content: bytes) -> Any:
        try:
            return super().decode(content)
        except ValueError:
            return None


class Yaml(File):
    """YAML; keys keep their order, and a list of plain values is written on one line."""

    def decode(self, content: bytes) -> Any:
        import yaml

        return yaml.safe_load(content)

    def encode(self, data: Any) -> bytes:
        import yaml

        text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
        return text.encode()


class Parquet(File):
    """A data frame as Parquet, with its attrs and without its row index."""

    def decode(self, content: bytes) -> Any:
        import pandas as pd

        return pd.read_parquet(BytesIO(content))

    def encode(self, data: Any) -> bytes:
        buffer = BytesIO()
        data.to_parquet(buffer, index=False, compression="zstd")
        return buffer.getvalue()


# Columns of names and digests: a digest may look like a number, and would lose its zeros.
TEXT_COLUMNS = ("cell", "recipe", "code", "data")


class Csv(File):
    """A data frame as CSV, floats with all digits, without its row index."""

    def decode(self, content: bytes) -> Any:
        import pandas as pd

        return pd.read_csv(StringIO(content.decode()), dtype=dict.fromkeys(TEXT_COLUMNS, str))

    def encode(self, data: Any) -> bytes:
        text: str = data.to_csv(index=False, lineterminator="\n")
        return text.encode()


class OptionalCsv(OptionalFile, Csv):
    """Like Csv, but loads None if the file does not exist."""


class Array(File):
    """A NumPy array, memory-mapped on load, so that only the rows in use are read."""

    def save(self, data: Any) -> None:
        import numpy as np

        # write_atomically needs all bytes in memory, where a mapped array may not fit; np.save makes no copy of it
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                np.save(file, data, allow_pickle=False)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def load(self) -> Any:
        import numpy as np

        return np.load(self.path, mmap_mode="r", allow_pickle=False)


class Folder(AbstractDataset[Any, Any]):
    """A folder of files: saves a mapping of file name to bytes, and loads the path of the folder.

    A save writes all new files before it deletes the old folder. A save that fails keeps the old folder; one that is
    killed while it deletes may leave a part of it.
    """

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        return self.path

    def save(self, data: dict[str, bytes]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=f".{self.path.name}.") as temporary:
            new = Path(temporary) / "new"
            for name, content in data.items():
                write_atomically(new / name, content)
            # a rename cannot replace a folder that has files: for a moment there is none
            shutil.rmtree(self.path, ignore_errors=True)
            new.replace(self.path)

    def _exists(self) -> bool:
        return self.path.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self.path)}


class Scratch(Folder):
    """A folder for a node's own use (resume points). It is not a result, so dvc.yaml does not list it."""

    def load(self) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path
