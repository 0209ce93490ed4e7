"""Datasets with a preview, which `kedro viz` shows: what is in a file, or None without the file.

The format is that of the class in ltpipe.storage.datasets. This module is not in that folder, on which DVC's stages
depend: nothing has to run again when a preview is drawn otherwise.
"""

import base64
import json
from io import BytesIO
from typing import Any, NewType

from ltpipe.storage import datasets

# kedro viz chooses how to draw a preview by the name of what `preview` returns; the package kedro-datasets has the same
TablePreview = NewType("TablePreview", dict[str, Any])
JSONPreview = NewType("JSONPreview", str)
PlotlyPreview = NewType("PlotlyPreview", dict[str, Any])
ImagePreview = NewType("ImagePreview", str)
NOTHING: Any = None  # the annotation has to be the name alone, and cannot say "or None"
ROWS, COLUMNS = 30, 30  # of a table
LARGEST = 200_000  # bytes of JSON
SHEET = 12  # a sheet of images has as many rows and columns


class Json(datasets.Json):
    """JSON, shown as a tree."""

    def preview(self) -> JSONPreview:
        if not self.path.exists() or self.path.stat().st_size > LARGEST:
            return NOTHING
        return JSONPreview(self.path.read_text())


class OptionalJson(datasets.OptionalJson, Json):
    """Like Json, but loads None if the file does not exist."""


class Parquet(datasets.Parquet):
    """Parquet, shown as a table."""

    def preview(self) -> TablePreview:
        return _head(self.load()) if self.path.exists() else NOTHING


class Csv(datasets.Csv):
    """CSV, shown as a table."""

    def preview(self) -> TablePreview:
        return _head(self.load()) if self.path.exists() else NOTHING


class Curves(datasets.Csv):
    """CSV whose first column is an axis, and every other one a curve over it."""

    def preview(self) -> PlotlyPreview:
        if not self.path.exists():
            return NOTHING
        columns = {name: json.loads(column.to_json(orient="values")) for name, column in self.load().items()}
        axis, *curves = columns
        lines = [{"type": "scatter", "x": columns[axis], "y": columns[curve], "name": curve} for curve in curves]
        return PlotlyPreview({"data": lines, "layout": {"xaxis": {"title": {"text": axis}}}})


class Images(datasets.Array):
    """An array of images, uint8, N x H x W x 3, shown as a sheet of images from all over it."""

    def preview(self) -> ImagePreview:
        if not self.path.exists():
            return NOTHING
        import numpy as np
        from PIL import Image

        images = self.load()
        chosen = images[np.linspace(0, len(images) - 1, SHEET * SHEET).astype(int)]
        _, height, width, colours = chosen.shape
        sheet = chosen.reshape(SHEET, SHEET, height, width, colours).swapaxes(1, 2)
        buffer = BytesIO()
        Image.fromarray(sheet.reshape(SHEET * height, SHEET * width, colours)).save(buffer, "PNG")
        return ImagePreview(base64.b64encode(buffer.getvalue()).decode())


class Report(datasets.Folder):
    """A folder of files, shown as one of its pictures."""

    def preview(self, file: str) -> ImagePreview:
        """file: name of a PNG, from the catalog's preview_args."""
        path = self.path / file
        return ImagePreview(base64.b64encode(path.read_bytes()).decode()) if path.exists() else NOTHING


def _head(table: Any) -> TablePreview:
    """Return the first rows and columns of a data frame, as JSON values."""
    return TablePreview(json.loads(table.iloc[:ROWS, :COLUMNS].to_json(orient="split")))
