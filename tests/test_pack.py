"""Packing: the images of a manifest as one array, in memory or, where they are too many, mapped; and its saving."""

import numpy as np
import pandas as pd
import pytest

from ltpipe.config.spec import Refused
from ltpipe.data import arrays as module
from ltpipe.data.pack import pack
from ltpipe.data.source import Source
from ltpipe.data.sources import digits
from ltpipe.storage.datasets import Array

SOURCE = Source(name="digits", size=16)


@pytest.fixture
def manifest():
    """37 images, some in two rows, rows of the array in another order than those of the table."""
    rows = np.random.RandomState(0).permutation(37)
    table = pd.DataFrame({"row": rows, "file": [str(1000 + row) for row in rows]})
    return pd.concat([table, table.head(5)], ignore_index=True)


def test_mapped_and_in_memory_are_the_same(manifest, tmp_path, monkeypatch):
    whole = pack(manifest, SOURCE, tmp_path / "raw")
    asked = []
    read = digits.read_images
    monkeypatch.setattr(digits, "read_images", lambda *a: asked.append(len(a[2])) or read(*a))
    monkeypatch.setattr(module, "IN_MEMORY", 10 * 16 * 16 * 3 + 5)
    mapped = pack(manifest, SOURCE, tmp_path / "raw")
    assert isinstance(mapped, np.memmap)
    assert asked == [10, 10, 10, 7]
    assert (mapped == whole).all()
    assert list(tmp_path.iterdir()) == []


def test_an_image_larger_than_the_limit_is_packed_alone(manifest, tmp_path, monkeypatch):
    whole = pack(manifest, SOURCE, tmp_path / "raw")
    monkeypatch.setattr(module, "IN_MEMORY", 1)
    assert (pack(manifest.head(2).assign(row=[1, 0]), SOURCE, tmp_path / "raw") == whole[manifest["row"][[1, 0]]]).all()


def test_too_little_room_is_said_before_anything_is_read(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 1)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(Refused, match=r"37 images of size 16 need 2 x 28,416 bytes in .*, 1,000 are free"):
        pack(manifest, SOURCE, tmp_path / "raw")


def test_a_mapped_array_is_saved_as_an_array_in_memory_is(manifest, tmp_path, monkeypatch):
    whole = pack(manifest, SOURCE, tmp_path / "raw")
    monkeypatch.setattr(module, "IN_MEMORY", 10_000)
    mapped = pack(manifest, SOURCE, tmp_path / "raw")
    for name, data in (("whole", whole), ("mapped", mapped)):
        Array(str(tmp_path / "out" / name)).save(data)
    assert (tmp_path / "out/whole").read_bytes() == (tmp_path / "out/mapped").read_bytes()
    loaded = Array(str(tmp_path / "out/mapped")).load()
    assert isinstance(loaded, np.memmap)
    assert (loaded == whole).all()


def test_an_array_that_cannot_be_saved_leaves_what_was_there(tmp_path):
    dataset = Array(str(tmp_path / "x.npy"))
    dataset.save(np.arange(3))
    with pytest.raises(Exception, match="Object arrays"):
        dataset.save(np.array([object()]))
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    assert dataset.load().tolist() == [0, 1, 2]
