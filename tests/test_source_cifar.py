"""CIFAR-10 and CIFAR-100 from miniature archives in the official binary layout."""

import hashlib
import io
import tarfile
from functools import partial

import numpy as np
import pytest

from ltpipe.config.spec import Refused
from ltpipe.data.acquire import cifar_binary
from ltpipe.data.fetch import COLUMNS, fetch
from ltpipe.data.pack import pack
from ltpipe.data.source import Source
from ltpipe.data.sources import cifar10, cifar100

IMAGES = 4  # of each file
RANDOM = np.random.RandomState(0)


def records(count, labels, classes):
    """Return labels, pixels and bytes of one file; CIFAR-100's coarse label is its fine label // 5."""
    fine = RANDOM.randint(0, classes, count).astype(np.uint8)
    pixels = RANDOM.randint(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    heads = np.stack([fine // 5, fine], axis=1) if labels == 2 else fine[:, None]
    return fine, pixels, np.concatenate([heads, pixels.reshape(count, -1)], axis=1).tobytes()


def archive(path, folder, members):
    with tarfile.open(path, "w:gz") as opened:
        for name, content in members.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))


@pytest.fixture(params=["cifar10", "cifar100"])
def mini(request, tmp_path, monkeypatch):
    """A source whose archive lies in the raw folder already: source, labels, pixels N x 3 x 32 x 32, raw."""
    module = {"cifar10": cifar10, "cifar100": cifar100}[request.param]
    classes, layout = int(request.param.removeprefix("cifar")), module.LAYOUT
    parts = {file: records(IMAGES, layout.label_bytes, classes) for file in (*layout.train, layout.test)}
    members = {file: content for file, (_, _, content) in parts.items()}
    members[layout.names] = "".join(f"class{i}\n" for i in range(classes)).encode() + b"\n"
    members["readme.html"] = b"<html></html>"
    path = tmp_path / layout.remote.name
    archive(path, layout.folder, members)
    remote = layout.remote._replace(checksum="md5:" + hashlib.md5(path.read_bytes()).hexdigest(), size=None)
    monkeypatch.setattr(module, "LAYOUT", layout._replace(remote=remote))
    labels, pixels = (np.concatenate([part[i] for part in parts.values()]) for i in (0, 1))
    return Source(name=request.param, size=32), labels, pixels, tmp_path


def test_the_index_keeps_the_order_of_the_files_and_the_official_splits(mini):
    source, labels, _, raw = mini
    index, notice = fetch(source, raw)
    train = len(labels) - IMAGES
    assert tuple(index.columns) == COLUMNS
    assert index["label"].tolist() == labels.tolist()
    assert index["file"].tolist() == [str(i) for i in range(len(labels))]
    assert index["official"].tolist() == ["train"] * train + ["test"] * IMAGES
    assert index["class_name"].tolist() == [f"class{label}" for label in labels]
    assert index["image"].is_unique
    assert index["image"].iloc[[0, -1]].tolist() == ["train00000", f"test{IMAGES - 1:05d}"]
    assert (index["attribute"] == -1).all()
    assert str(index["label"].dtype) == str(index["attribute"].dtype) == "int64"
    assert "Krizhevsky" in notice


def test_the_images_are_the_archive_s_pixels_with_channels_last(mini):
    source, _, pixels, raw = mini
    index = fetch(source, raw)[0]
    expected = pixels.transpose(0, 2, 3, 1)
    everything = index.assign(row=range(len(index)))
    assert (pack(everything, source, raw) == expected).all()
    some = everything.iloc[[5, 0, -1]].assign(row=[2, 0, 1])
    assert (pack(some, source, raw) == expected[[0, -1, 5]]).all()


def test_an_image_outside_of_the_archive_is_refused(mini):
    source, labels, _, raw = mini
    index = fetch(source, raw)[0].head(1).assign(row=0, file=str(len(labels)))
    with pytest.raises(Refused, match=f"holds images 0 to {len(labels) - 1}, not {len(labels)}"):
        pack(index, source, raw)


def test_other_sizes_than_32_are_refused(mini):
    source, _, _, raw = mini
    index = fetch(source, raw)[0].assign(row=0)
    with pytest.raises(Refused, match="32 x 32; size cannot be 64"):
        pack(index, source.model_copy(update={"size": 64}), raw)


def test_the_archive_is_needed_only_once(mini):
    source, labels, _, raw = mini
    fetch(source, raw)
    next(raw.glob("*.tar.gz")).unlink()
    assert len(fetch(source, raw)[0]) == len(labels)


def test_a_truncated_file_is_refused(mini):
    source, _, _, raw = mini
    fetch(source, raw)
    victim = next(raw.glob("*/test*.bin"))
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(Refused, match=f"{victim.name}: .* bytes, not records of"):
        fetch(source, raw)
    victim.unlink()
    with pytest.raises(Refused, match="0 bytes, not records"):
        fetch(source, raw)


def test_a_label_without_a_name_is_refused(mini):
    source, _, _, raw = mini
    fetch(source, raw)
    names = next(iter([*raw.glob("*/batches.meta.txt"), *raw.glob("*/fine_label_names.txt")]))
    names.write_text("only\n")
    with pytest.raises(Refused, match="names 1 classes"):
        fetch(source, raw)


def test_an_archive_with_a_wrong_checksum_is_not_unpacked(mini, monkeypatch):
    source, _, _, raw = mini
    module = {"cifar10": cifar10, "cifar100": cifar100}[source.name]
    closed = module.LAYOUT.remote._replace(url=f"http://127.0.0.1:9/{module.LAYOUT.remote.name}")
    monkeypatch.setattr(module, "LAYOUT", module.LAYOUT._replace(remote=closed))
    monkeypatch.setattr(cifar_binary, "fetch_file", partial(cifar_binary.fetch_file, pauses=()))
    path = next(raw.glob("*.tar.gz"))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(Refused, match=r"(?s)cannot fetch cifar.*without a network: put the file at .* md5:"):
        fetch(source, raw)
    assert [p.name for p in raw.iterdir() if not p.name.startswith(".")] == [path.name]


def test_the_official_archives_are_named_with_their_checksums():
    ten, hundred = cifar10.LAYOUT.remote, cifar100.LAYOUT.remote
    assert ten.url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert (ten.checksum, ten.size) == ("md5:c32a1d4ab5d03f1284b67883e8d87530", 170052171)
    assert hundred.url == "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
    assert (hundred.checksum, hundred.size) == ("md5:03b5dce01913d631647c71ecec9e9cb8", 168513733)
    assert cifar10.LAYOUT.train == tuple(f"data_batch_{i}.bin" for i in (1, 2, 3, 4, 5))
