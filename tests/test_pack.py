"""Packing the images of a manifest into one array, in memory or (if they are too many) mapped; and saving it."""

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
    """Return a manifest of 37 images, some in two rows, with array rows in another order than the table's rows."""
    rows = np.random.RandomState(0).permutation(37)
    table = pd.DataFrame({"row": rows, "file": [str(1000 + row) for row in rows]})
    return pd.concat([table, table.head(5)], ignore_index=True)


def test_packing_into_a_mapped_array_and_in_memory_gives_the_same(manifest, tmp_path, monkeypatch):
    in_memory = pack(manifest, SOURCE, tmp_path / "raw")
    batches = []
    read = digits.read_images
    monkeypatch.setattr(digits, "read_images", lambda *a: batches.append(len(a[2])) or read(*a))
    monkeypatch.setattr(module, "IN_MEMORY", 10 * 16 * 16 * 3 + 5)
    mapped = pack(manifest, SOURCE, tmp_path / "raw")
    assert isinstance(mapped, np.memmap)
    assert batches == [10, 10, 10, 7]
    assert (mapped == in_memory).all()
    assert list(tmp_path.iterdir()) == []


def test_an_image_larger_than_the_limit_is_packed_alone(manifest, tmp_path, monkeypatch):
    in_memory = pack(manifest, SOURCE, tmp_path / "raw")
    monkeypatch.setattr(module, "IN_MEMORY", 1)
    assert (
        pack(manifest.head(2).assign(row=[1, 0]), SOURCE, tmp_path / "raw") == in_memory[manifest["row"][[1, 0]]]
    ).all()


def test_too_little_disk_space_is_refused_before_anything_is_read(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "IN_MEMORY", 1)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(Refused, match=r"37 images of size 16 need 2 x 28,416 bytes in .*, 1,000 are free"):
        pack(manifest, SOURCE, tmp_path / "raw")


def test_a_mapped_array_is_saved_with_the_same_bytes_as_an_array_in_memory(manifest, tmp_path, monkeypatch):
    in_memory = pack(manifest, SOURCE, tmp_path / "raw")
    monkeypatch.setattr(module, "IN_MEMORY", 10_000)
    mapped = pack(manifest, SOURCE, tmp_path / "raw")
    for name, data in (("in_memory", in_memory), ("mapped", mapped)):
        Array(str(tmp_path / "out" / name)).save(data)
    assert (tmp_path / "out/in_memory").read_bytes() == (tmp_path / "out/mapped").read_bytes()
    loaded = Array(str(tmp_path / "out/mapped")).load()
    assert isinstance(loaded, np.memmap)
    assert (loaded == in_memory).all()


def test_an_array_that_cannot_be_saved_leaves_the_old_file(tmp_path):
    dataset = Array(str(tmp_path / "x.npy"))
    dataset.save(np.arange(3))
    with pytest.raises(Exception, match="Object arrays"):
        dataset.save(np.array([object()]))
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    assert dataset.load().tolist() == [0, 1, 2]
