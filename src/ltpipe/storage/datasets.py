"""Kedro datasets: the only code that knows file formats. Every save is whole or absent; used by the catalog alone."""

import json
import os
import shutil
import tempfile
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset

from ltpipe.storage.atomic import write


class File(AbstractDataset[Any, Any]):
    """Bytes; the other datasets add a format. `metadata` is for the ledger (see dvc_yaml.py)."""

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        return self.decode(self.path.read_bytes())

    def save(self, data: Any) -> None:
        write(self.path, self.encode(data))

    def decode(self, content: bytes) -> Any:
        """What the file's bytes mean."""
        return content

    def encode(self, data: Any) -> bytes:
        """`data` as the file's bytes; the same bytes for the same data."""
        return bytes(data)

    def _exists(self) -> bool:
        return self.path.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self.path)}


class Text(File):
    """UTF-8 text."""

    def decode(self, content: bytes) -> str:
        return content.decode()

    def encode(self, data: str) -> bytes:
        return data.encode()


class Json(File):
    """Strict JSON (no NaN), sorted keys."""

    def decode(self, content: bytes) -> Any:
        return json.loads(content)

    def encode(self, data: Any) -> bytes:
        return (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


class OptionalJson(Json):
    """As Json; loads None where there is no file."""

    def load(self) -> Any:
        return super().load() if self.path.exists() else None


class Yaml(File):
    """YAML, keys in their order, each list of plain values on one line."""

    def decode(self, content: bytes) -> Any:
        import yaml

        return yaml.safe_load(content)

    def encode(self, data: Any) -> bytes:
        import yaml

        text: str = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
        return text.encode()


class Parquet(File):
    """A data frame; attrs survive."""

    def decode(self, content: bytes) -> Any:
        import pandas as pd

        return pd.read_parquet(BytesIO(content))

    def encode(self, data: Any) -> bytes:
        buffer = BytesIO()
        data.to_parquet(buffer, index=False, compression="zstd")
        return buffer.getvalue()


class Csv(File):
    """A data frame; floats with all their digits."""

    def decode(self, content: bytes) -> Any:
        import pandas as pd

        return pd.read_csv(StringIO(content.decode()))

    def encode(self, data: Any) -> bytes:
        text: str = data.to_csv(index=False, lineterminator="\n")
        return text.encode()


class Array(File):
    """A NumPy array, mapped on load: a split reads only its rows. Saved piece by piece: it may exceed the memory."""

    def save(self, data: Any) -> None:
        import numpy as np

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
    """Files by name in a folder that is replaced whole; loads as the folder's path."""

    def __init__(self, filepath: str, metadata: dict[str, Any] | None = None) -> None:
        self.path = Path(filepath)
        self.metadata = metadata

    def load(self) -> Path:
        return self.path

    def save(self, data: dict[str, bytes]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=f".{self.path.name}.") as name:
            whole = Path(name) / "new"
            for file, content in data.items():
                write(whole / file, content)
            shutil.rmtree(self.path, ignore_errors=True)
            whole.replace(self.path)

    def _exists(self) -> bool:
        return self.path.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self.path)}


class Scratch(Folder):
    """A folder for a node's own use (resume points); not a result, so the ledger does not know it."""

    def load(self) -> Path:
        self.path.mkdir(parents=True, exist_ok=True)
        return self.path
