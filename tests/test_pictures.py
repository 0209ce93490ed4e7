"""Training from whole pictures: torchvision's pixels, the same bits with any number of workers, and what is refused."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from PIL import Image
from torchvision import transforms

from ltpipe.benchmark import Benchmark, load
from ltpipe.config.spec import Refused, parse
from ltpipe.data import crops, originals
from ltpipe.data.checks.rules import sharp_crops
from ltpipe.data.checks.validate import Crops, validate
from ltpipe.data.decode import Picture, crop_square, open_picture, picture_sizes
from ltpipe.data.source import Source
from ltpipe.data.split import admit
from ltpipe.interface.phases import Augment
from ltpipe.models.pixels import centre_crop
from ltpipe.storage.manifest import fingerprint
from ltpipe.training import checkpoint, determinism, loop
from ltpipe.training.pictures import Pictures

# four workers on a machine with fewer cores
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

AREA = (0.08, 1.0)
JITTERED = Augment(resized_crop=AREA, flip=True, colour_jitter=(0.4, 0.4, 0.4, 0.1))
FILES = Source(name="image_folder", size=32, pictures="files")
PACKED = Source(name="image_folder", size=32, pictures="packed", shorter_side=48)
SHAPES = ((100, 75), (60, 91), (64, 64), (40, 30), (133, 50))  # width and height; one is smaller than all sizes used


def picture(number, shape):
    """Return a picture with noise on soft colours."""
    random = np.random.RandomState(number)
    soft = Image.fromarray(random.randint(0, 256, (4, 5, 3)).astype(np.uint8)).resize(shape, Image.Resampling.BICUBIC)
    noise = random.randint(-20, 21, (*shape[::-1], 3))
    return Image.fromarray((np.asarray(soft).astype(int) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    """A raw folder with 25 JPEG files: those of the tiny training images, of which val and test have none."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(len(tiny.TRAIN.labels) + 2):
        picture(number, SHAPES[number % len(SHAPES)]).save(folder / f"{number}.jpg", quality=90)
    return folder


@pytest.fixture
def drawn(folder):
    """A manifest of the pictures, of which the last two are test images; rows are not in the order of the files."""
    count = len(list(folder.glob("*.jpg")))
    roles = ["train"] * (count - 2) + ["test"] * 2
    labels = [*tiny.TRAIN.labels.tolist(), 0, 0]
    table = {"id": [f"{r}/{i}" for i, r in enumerate(roles)], "role": roles, "split": roles, "label": labels}
    table |= {"file": [f"{i}.jpg" for i in range(count)], "row": [(7 * i) % count for i in range(count)]}
    return pd.DataFrame(table | {"image": table["file"], "source": "", "class_name": "", "group": "", "attribute": -1})


def opened(drawn, folder, source=FILES):
    """Return the opener of a route, and the table of originals."""
    manifest, table = originals.trace(drawn, source, folder)
    if source.pictures == "files":
        return originals.open_files(table, source, folder), table
    packed = originals.pack_pictures(manifest, table, source, folder)
    table = originals.note_packed(table, *packed)
    return originals.open_packed(table, *packed), table


def pictures(drawn, folder, workers=0, source=FILES, size=24):
    rows = drawn.loc[drawn["role"] == "train", "row"].to_numpy()
    return Pictures(opened(drawn, folder, source)[0], rows, size, workers)


STEPS = [
    [torch.tensor([0, 5, 9]), torch.tensor([1])],
    [torch.tensor([2, 2]), torch.tensor([3])],
    [torch.tensor([4, 8])],
]


def read(taken, start=0, augment=JITTERED, key=(7, 1, 2)):
    return list(taken.prefetch(STEPS, start, augment, key, tiny.CPU))


@pytest.mark.parametrize("augment", [Augment(resized_crop=AREA), Augment(resized_crop=(0.5, 1), flip=True), JITTERED])
def test_training_images_are_torchvisions_of_the_files(augment, drawn, folder):
    steps = [transforms.RandomResizedCrop(24, scale=augment.resized_crop)]
    steps += [transforms.RandomHorizontalFlip()] if augment.flip else []
    steps += [transforms.ColorJitter(*augment.colour_jitter)] if augment.colour_jitter else []
    usual = transforms.Compose(steps)
    for number, rows, pixels in read(pictures(drawn, folder), augment=augment):
        for stream, (images, mine) in enumerate(zip(rows, pixels, strict=True)):
            for place, (image, pixel) in enumerate(zip(images.tolist(), mine, strict=True)):
                torch.manual_seed(determinism.number(7, 1, 2, number, stream, place, "picture"))
                theirs = np.asarray(usual(Image.open(folder / f"{image}.jpg").convert("RGB"))).astype(int)
                assert np.abs(theirs - pixel.numpy()).max() <= 1


@pytest.mark.parametrize(("resize", "crop"), [(128, 112), (256, 224), (32, 32), (40, 24)])
def test_evaluation_images_are_torchvisions_of_the_files(resize, crop, drawn, folder):
    squares = originals.pack_exactly(drawn, FILES.model_copy(update={"size": resize}), folder)
    centres = centre_crop(torch.from_numpy(squares), crop)
    usual = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(crop)])
    for file, row in zip(drawn["file"], drawn["row"], strict=True):
        theirs = np.asarray(usual(Image.open(folder / file).convert("RGB"))).astype(int)
        assert np.abs(theirs - centres[row].numpy()).max() <= 1


@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (501, 334), (333, 500), (3, 1000), (4000, 7)])
def test_the_centre_square_is_torchvisions(shape):
    image = picture(1, shape)
    theirs = np.asarray(transforms.CenterCrop(128)(transforms.Resize(128)(image))).astype(int)
    assert np.abs(theirs - np.asarray(crop_square(image, 128))).max() <= 1


def test_the_number_of_workers_changes_no_bit(drawn, folder):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    alone = read(pictures(drawn, folder))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(alone[1][2][0][0], alone[1][2][0][1])  # the same image twice in a batch, in other boxes
    for workers in (1, 4):
        torch.manual_seed(workers)
        for mine, theirs in zip(alone, read(pictures(drawn, folder, workers)), strict=True):
            assert mine[0] == theirs[0]
            assert all(torch.equal(a, b) for a, b in zip(mine[2], theirs[2], strict=True))
    for start in (1, 2, 3):
        later = read(pictures(drawn, folder, 1), start)
        assert [number for number, _, _ in later] == list(range(start, 3))
        for mine, theirs in zip(alone[start:], later, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine[2], theirs[2], strict=True))
    assert not torch.equal(read(pictures(drawn, folder), key=(7, 1, 3))[0][2][0], alone[0][2][0])


def task(drawn, folder, out, workers, source=FILES):
    """Return a training run of mixup, which draws from the global generator's stream too, on whole pictures."""
    augment = {"resized_crop": AREA, "flip": True, "randaug": True, "colour_jitter": (0.2, 0.2, 0.2)}
    schedule = tiny.SCHEDULE.with_changes({"augment": {"crop": 0, **augment}})
    taken = pictures(drawn, folder, workers, source, tiny.SIZE)
    return replace(tiny.task(out, "mixup", schedule=schedule), pictures=taken)


def test_workers_need_no_shared_memory(drawn, folder):
    """A container has 64 MB of it."""
    pixels = [part for _, _, parts in read(pictures(drawn, folder, workers=1)) for part in parts]
    assert pixels and not any(part.is_shared() for part in pixels)


def test_training_gives_the_same_bits_with_any_workers_and_after_a_kill(drawn, folder, tmp_path, monkeypatch):
    expected = loop.fit(task(drawn, folder, tmp_path / "0", 0))
    for workers in (1, 4):
        result = loop.fit(task(drawn, folder, tmp_path / str(workers), workers))
        assert tiny.same(result[0], expected[0]) and result[1] == expected[1]
        killed = task(drawn, folder, tmp_path / f"killed{workers}", workers)
        with monkeypatch.context() as patch, pytest.raises(tiny.Killed):
            patch.setattr(checkpoint, "save_resume", tiny.Killer(after=2))
            loop.fit(killed)
        torch.manual_seed(99)
        resumed = loop.fit(replace(killed, pictures=replace(killed.pictures, workers=4 - workers)))
        assert tiny.same(resumed[0], expected[0]) and resumed[1] == expected[1]
    packed = loop.fit(task(drawn, folder, tmp_path / "packed", 1, PACKED))
    assert not tiny.same(packed[0], expected[0])  # other pictures, and both are not the squares of the tiny problem
    assert not tiny.same(loop.fit(replace(killed, pictures=None, resume=tmp_path / "r"))[0], expected[0])


def test_only_what_is_left_to_do_is_done_on_the_device(drawn, folder, tmp_path, monkeypatch):
    asked, augment_batch = [], loop.augment_batch
    monkeypatch.setattr(loop, "augment_batch", lambda *a: asked.append((a[0], a[1])) or augment_batch(*a))
    loop.fit(task(drawn, folder, tmp_path, 0))
    assert {augment for _, augment in asked} == {Augment(randaug=True)}  # a second flip would undo half of the first
    assert {tuple(pixels.shape[1:]) for pixels, _ in asked} == {(tiny.SIZE, tiny.SIZE, 3)}


def test_a_second_draw_of_the_stream_takes_boxes_of_the_pictures_too(drawn, folder, tmp_path, monkeypatch):
    """Centroids of DRO-LT over the augmented stream: not of squares, which would only be cut to their centre."""
    seen = []
    prefetch = Pictures.prefetch

    def spy(self, steps, start, augment, key, device):
        seen.append((key[3:], sum(len(rows) for step in steps for rows in step)))
        return prefetch(self, steps, start, augment, key, device)

    monkeypatch.setattr(Pictures, "prefetch", spy)
    case = task(drawn, folder, tmp_path / "a", 0)
    options = tiny.example("dro_lt") | {"centroids": "stream", "images": 16}
    loop.fit(replace(case, run=tiny.task(tmp_path / "b", "dro_lt", options).run))
    drawn_anew = [images for purpose, images in seen if purpose == ("embedded",)]
    assert drawn_anew == [16] and len(seen) > 2


def test_a_phase_without_random_boxes_trains_on_the_squares(drawn, folder, tmp_path):
    plain = tiny.task(tmp_path, "ce")
    with_pictures = replace(plain, pictures=pictures(drawn, folder, 0, FILES, tiny.SIZE))
    alone = replace(plain, resume=tmp_path / "alone" / "resume.pt")
    assert tiny.same(loop.fit(with_pictures)[0], loop.fit(alone)[0])


def test_packed_pictures_are_torchvisions_and_never_enlarged(drawn, folder):
    taken, table = opened(drawn, folder, PACKED)
    for row, file in zip(table["row"], table["file"], strict=True):
        whole = Image.open(folder / file).convert("RGB")
        expected = transforms.Resize(48)(whole) if min(whole.size) > 48 else whole
        assert taken(row).size == expected.size
        assert np.array_equal(np.asarray(taken(row)), np.asarray(expected))


def test_a_mapped_store_is_handed_to_workers_by_its_name(drawn, folder, tmp_path):
    taken, table = opened(drawn, folder, PACKED)
    np.save(tmp_path / "pictures.npy", np.asarray(taken.flat))
    mapped = originals.open_packed(table, np.load(tmp_path / "pictures.npy", mmap_mode="r"), taken.sizes)
    content = pickle.dumps(mapped)
    assert len(content) < 5000 < taken.flat.nbytes
    again = pickle.loads(content)  # noqa: S301 - our own
    assert all(again(row) == taken(row) for row in table["row"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda flat, sizes: (flat ^ (np.arange(len(flat)) == 70_000), sizes), r"their digest is \w{12}, not \w{12}"),
        (lambda flat, sizes: (flat, sizes[:, ::-1]), "their digest is"),
        (lambda flat, sizes: (flat[:-1], sizes), r"[\d,]+ bytes are there, [\d,]+ are needed"),
        (lambda flat, sizes: (flat, sizes[1:]), "24 sizes are there, 25 pictures are needed"),
    ],
)
def test_packed_pictures_that_were_changed_are_refused(change, message, drawn, folder):
    taken, table = opened(drawn, folder, PACKED)
    changed = change(taken.flat, taken.sizes)
    with pytest.raises(Refused, match=f"not those of this split: {message}.*pack them again"):
        originals.open_packed(table, *changed)


def test_the_digest_of_packed_pictures_survives_the_tables_file(drawn, folder, tmp_path):
    from ltpipe.storage.datasets import Parquet

    taken, table = opened(drawn, folder, PACKED)
    Parquet(str(tmp_path / "o.parquet")).save(table)
    stored = pd.read_parquet(tmp_path / "o.parquet")
    assert originals.open_packed(stored, taken.flat, taken.sizes)(table["row"][0]) == taken(table["row"][0])
    stored.attrs = {}
    with pytest.raises(Refused, match=r"their digest is \w{12}, not None"):
        originals.open_packed(stored, taken.flat, taken.sizes)


def test_the_route_and_its_code_are_in_the_identity_of_the_data(drawn, folder, monkeypatch):
    smaller = PACKED.model_copy(update={"shorter_side": 40})
    traced = [originals.trace(drawn, source, folder)[0] for source in (FILES, PACKED, smaller)]
    assert [manifest.attrs["pictures"] for manifest in traced] == [["files", None], ["packed", 48], ["packed", 40]]
    seen = {fingerprint(manifest) for manifest in traced}
    assert len(seen) == 3
    monkeypatch.setattr(originals, "code_version", lambda modules: f"other {sorted(modules)}")
    assert fingerprint(originals.trace(drawn, FILES, folder)[0]) not in seen
    squares = FILES.model_copy(update={"pictures": "squares"})
    assert originals.trace(drawn, squares, folder)[0].attrs == {}


def edit_border(path):
    """Change a picture where no centre square sees it."""
    image = np.asarray(Image.open(path).convert("RGB")).copy()
    image[:, :2] = 255 - image[:, :2]
    Image.fromarray(image).save(path, quality=90)


def test_a_split_for_packed_pictures_is_not_trained_on_files(drawn, folder):
    table = originals.trace(drawn, FILES, folder)[1]
    assert originals.open_files(table, FILES, folder)
    table.attrs["packed"] = "a digest"
    with pytest.raises(Refused, match=r"drawn for source\.pictures: packed, not files"):
        originals.open_files(table, FILES, folder)


@pytest.mark.parametrize("opener", [None, 1])
def test_training_refuses_a_manifest_that_was_drawn_for_another_route(tmp_path, opener):
    from ltpipe.recipe.run import Run
    from ltpipe.training.train import train

    manifest = pd.DataFrame({"split": ["train"], "role": ["train"]})
    if opener is None:
        manifest.attrs["pictures"] = ["files", None]
    images = np.zeros((1, 16, 16, 3), np.uint8)
    taken = (lambda row: row) if opener else None
    with pytest.raises(Refused, match=r"drawn for source\.pictures: (files|squares), not for (squares|whole pictures)"):
        train(manifest, images, tmp_path, Run(method="ce"), tiny.SCHEDULE, tiny.MODEL, 0, None, taken, cell="a.b.c")


@pytest.mark.parametrize("source", [FILES, PACKED])
def test_an_edited_picture_is_another_state_of_the_data(source, drawn, folder):
    before, table = originals.trace(drawn, source, folder)
    index = originals.note_contents(drawn, source, folder)
    assert fingerprint(before) != fingerprint(drawn)
    assert fingerprint(originals.trace(drawn, source, folder)[0]) == fingerprint(before)
    edit_border(folder / "0.jpg")
    assert originals.note_contents(drawn, source, folder).attrs["contents"] != index.attrs["contents"]
    assert fingerprint(originals.trace(drawn, source, folder)[0]) != fingerprint(before)
    with pytest.raises(Refused, match=r"1 training pictures in .* have changed since .*0\.jpg: run the stages"):
        originals.open_files(table, source, folder)


def test_the_digest_of_the_pictures_survives_the_manifests_file(drawn, folder, tmp_path):
    from ltpipe.storage.datasets import Parquet

    manifest, _ = originals.trace(drawn, FILES, folder)
    Parquet(str(tmp_path / "m.parquet")).save(manifest)
    assert fingerprint(Parquet(str(tmp_path / "m.parquet")).load()) == fingerprint(manifest)


def test_only_training_pictures_are_traced_and_turned_upright(drawn, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, (100, 75)).save(folder / "0.jpg", exif=exif)
    table = opened(drawn, folder)[1].set_index("file")
    assert len(table) == len(drawn) - 2
    assert table.loc["0.jpg", ["width", "height"]].tolist() == [75, 100]
    assert table.loc["1.jpg", ["width", "height"]].tolist() == list(SHAPES[1])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["tif", "jpg", "png"])
def test_a_picture_is_measured_as_it_is_opened(ending, orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{ending}"
    picture(0, (20, 40)).save(path, exif=exif)
    assert tuple(picture_sizes([Picture(path)])[0]) == open_picture(Picture(path)).size


def test_a_tiff_held_sideways_is_packed_upright(drawn, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(0, (40, 20)).save(folder / "0.jpg", format="TIFF", exif=exif)
    taken, table = opened(drawn, folder, PACKED)
    assert taken(table.loc[table["file"] == "0.jpg", "row"].item()).size == (20, 40)


def test_a_picture_of_another_size_than_measured_is_not_stretched(drawn, folder, monkeypatch):
    manifest, table = originals.trace(drawn, PACKED, folder)
    table.loc[0, ["width", "height"]] = [75, 100]
    message = r"cannot decode .*0\.jpg: the picture has 100 x 75 pixels, but was measured as 75 x 100"
    with pytest.raises(Refused, match=message):
        originals.pack_pictures(manifest, table, PACKED, folder)
    monkeypatch.setattr(originals, "measure_picture", lambda picture: (75, 100))
    with pytest.raises(Refused, match=r"the picture has 100 x 75 pixels, but was measured as 75 x 100"):
        originals.pack_exactly(drawn, PACKED, folder)


def test_sources_without_picture_files_and_missing_files_are_refused(drawn, folder):
    digits = Source(name="digits", size=16, pictures="files")
    with pytest.raises(Refused, match=r"source digits keeps its images in an array"):
        originals.trace(drawn.assign(file="3"), digits, folder)
    (folder / "3.jpg").unlink()
    with pytest.raises(Refused, match=r"3\.jpg: no such file"):
        originals.trace(drawn, FILES, folder)
    with pytest.raises(Refused, match=r"cannot read .*3\.jpg: No such file"):
        originals.note_contents(drawn, FILES, folder)


def test_a_broken_picture_is_named_by_the_worker(drawn, folder):
    taken = pictures(drawn, folder, 1)
    (folder / "0.jpg").write_bytes(b"no picture")
    with pytest.raises(Refused, match=r"cannot decode .*0\.jpg: not an image"):
        read(taken)


def test_a_packed_side_is_stated_with_packed_pictures_only():
    for wrong in ({"pictures": "packed"}, {"shorter_side": 256}, {"pictures": "files", "shorter_side": 256}):
        with pytest.raises(ValueError, match="shorter_side"):
            Source(name="image_folder", size=32, **wrong)
    with pytest.raises(ValueError, match="colour_jitter changes random boxes"):
        Augment(colour_jitter=(0.4, 0.4, 0.4))


# a photograph of ImageNet's usual size
PHOTOGRAPHS = np.tile([[500, 375]], (1000, 1))


@pytest.mark.parametrize(
    ("source", "area", "image", "upsampled", "median"),
    [
        (Source(name="imagenet2012", size=128), AREA, 112, 0.86, 0.79),
        (Source(name="imagenet2012", size=128, pictures="files"), AREA, 112, 0.0, 2.51),
        (Source(name="imagenet2012", size=128, pictures="packed", shorter_side=256), AREA, 112, 0.094, 1.71),
        (Source(name="imagenet2012", size=256), AREA, 224, 0.86, 0.79),
        (Source(name="imagenet2012", size=256, pictures="files"), AREA, 224, 0.28, 1.25),
        (Source(name="mscoco_glt", size=128), (0.5, 1.0), 112, 0.71, 0.94),
    ],
)
def test_the_share_of_enlarged_boxes_is_that_of_the_authors(source, area, image, upsampled, median):
    facts = crops.summarise(PHOTOGRAPHS, source, area, image)
    assert abs(facts["upsampled"] - upsampled) < 0.015
    assert abs(facts["median"] - median) < 0.02


def test_boxes_are_drawn_as_torchvision_draws_them():
    sizes = np.tile([[90, 64]], (4000, 1))
    mine = crops.draw_boxes(sizes, (0.3, 1.0), np.random.RandomState(0))
    torch.manual_seed(0)
    image = Image.new("L", (90, 64))
    drawn = [transforms.RandomResizedCrop.get_params(image, (0.3, 1.0), crops.RATIO) for _ in range(4000)]
    theirs = np.array([(width, height) for _, _, height, width in drawn])
    for a, b in zip(mine.T, theirs.T, strict=True):
        assert abs(a.mean() - b.mean()) < 5 * (a.std() + b.std()) / 4000**0.5
        assert abs(a.std() - b.std()) < 0.05 * b.std()
    long, high = crops.draw_boxes(np.array([[900, 10], [10, 900]]), (0.9, 1.0), np.random.RandomState(0))
    assert (long.tolist(), high.tolist()) == ([13, 10], [10, 13])  # no try fits: the nearest ratio that is allowed


def test_a_small_picture_counts_as_its_own_pixels():
    squares = Source(name="imagenet2012", size=128)
    small = crops.summarise(np.tile([[64, 64]], (100, 1)), squares, AREA, 112)
    assert small["upsampled"] == small["upsampled_whole"] == 1.0
    assert small["median"] == pytest.approx(small["median_whole"], abs=0.01)


def test_each_training_split_is_measured_and_logged(drawn, folder, caplog):
    candidate, table = originals.trace(drawn, FILES.model_copy(update={"pictures": "squares"}), folder)
    assert set(table["digest"]) == {""} and fingerprint(candidate) == fingerprint(drawn)
    with caplog.at_level("INFO", "ltpipe.data"):
        measured = crops.measure_crops(candidate, table, Source(name="image_folder", size=32), AREA, 28)
    assert list(measured) == ["train"]
    assert measured["train"]["upsampled"] > 0.8 > 0.4 > measured["train"]["upsampled_whole"]
    assert "crops of train from squares: 8" in caplog.text


def test_a_patch_is_cut_as_for_its_square(tmp_path):
    import json

    from ltpipe.data.sources import mscoco_glt

    photo = tmp_path / "train2014/1.jpg"
    photo.parent.mkdir()
    picture(3, (300, 200)).save(photo)
    boxes = [[10.3, 20.7, 120.2, 40.9], [250.0, 150.0, 30.0, 49.0], [0.0, 0.0, 300.0, 200.0]]
    (tmp_path / "patches.json").write_text(json.dumps([["train2014/1.jpg", *box] for box in boxes]))
    source = Source(name="mscoco_glt", size=32, pictures="files")
    found = originals.find_pictures(source, tmp_path, ["2", "0", "1"])
    assert all(isinstance(patch, Picture) and Path(patch.path) == photo for patch in found)
    table = pd.DataFrame({"file": ["2", "0", "1"], "row": [0, 1, 2], "role": "train"})
    taken, table = opened(table, tmp_path, source)
    for row, box in enumerate([boxes[2], boxes[0], boxes[1]]):
        whole = mscoco_glt.cut_patch(Image.open(photo).convert("RGB"), tuple(box))
        assert taken(row) == whole and tuple(table.loc[row, ["width", "height"]]) == whole.size


def test_an_edited_box_is_another_state_of_the_data(tmp_path):
    import json

    boxes = [["1.jpg", 10.0, 20.0, 120.0, 110.0], ["1.jpg", 50.0, 60.0, 110.0, 120.0]]
    picture(3, (300, 200)).save(tmp_path / "1.jpg")
    (tmp_path / "patches.json").write_text(json.dumps(boxes))
    source = Source(name="mscoco_glt", size=32, pictures="files")
    columns = ["id", "image", "source", "class_name", "role", "split", "group", "attribute", "label"]
    drawn = pd.DataFrame({"file": ["0", "1"], "row": [0, 1]} | dict.fromkeys(columns, "train"))
    before, table = originals.trace(drawn, source, tmp_path)
    index = originals.note_contents(drawn, source, tmp_path)
    assert table["digest"].nunique() == 2  # two patches of one file
    boxes[1][1] += 1
    (tmp_path / "patches.json").write_text(json.dumps(boxes))
    assert fingerprint(originals.trace(drawn, source, tmp_path)[0]) != fingerprint(before)
    assert originals.note_contents(drawn, source, tmp_path).attrs["contents"] != index.attrs["contents"]
    with pytest.raises(Refused, match=r"1 training pictures in .* have changed since .*e\.g\. 1: run the stages"):
        originals.open_files(table, source, tmp_path)


def changed(content, **blocks):
    """Return a benchmark with random boxes, with the keys of some blocks changed."""
    content["schedule"]["augment"] = {"resized_crop": [0.1, 1.0]}
    content["source"] = {"name": "imagenet2012", "size": 16, "pictures": "files"}
    for block, keys in blocks.items():
        content[block] = content[block] | keys
    return content


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"schedule": {"augment": {"crop": 2}}}, r"source\.pictures is about random boxes, but .*resized_crop is null"),
        (
            {"schedule": {"augment": {}}, "source": {"pictures": "squares"}, "expect": {"crops": {"upsampled": 0.1}}},
            r"expect\.crops is about random boxes",
        ),
        (
            {
                "schedule": {"augment": {"resized_crop": [0.1, 1], "colour_jitter": [0.4, 0.4, 0.4]}},
                "source": {"pictures": "squares"},
            },
            r"colour_jitter needs whole pictures: state source\.pictures",
        ),
        (
            {
                "runs": {
                    "ce": {
                        "train": {"method": "ce", "split": "train_glt"},
                        "reported": {"value": 40.0, "source": "a paper", "why": "a test"},
                    }
                }
            },
            r"runs\.ce has a reported value, and random boxes: state .*expect\.crops: \{upsampled: whole\}",
        ),
        (
            {
                "expect": {"crops": {"upsampled": "whole"}},
                "runs": {
                    "ce": {
                        "train": {
                            "method": "ce",
                            "split": "train_glt",
                            "schedule": {"augment": {"resized_crop": [0.5, 1]}},
                        }
                    }
                },
            },
            r"runs\.ce\.train\.schedule changes augment\.resized_crop, but expect\.crops measures",
        ),
        ({"expect": {"crops": {"upsampled": "all"}}}, r"expect\.crops\.upsampled"),
        ({"expect": {"crops": {"upsampled": 1.5}}}, r"expect\.crops\.upsampled"),
    ],
)
def test_a_benchmark_whose_boxes_cannot_be_what_it_says_is_refused(content, blocks, message):
    shared = {"metric": "glt.accuracy.all", "tolerance": 1.0, "why": "a test"}
    block = changed(content["digits_glt"], **blocks) | {"reported": shared, "claims": []}
    with pytest.raises(Refused, match=message):
        parse(Benchmark, block, "benchmark")


MEASURED = {"upsampled": 0.09, "upsampled_whole": 0.0, "median": 1.71, "median_whole": 2.51}


@pytest.mark.parametrize(
    ("allowed", "measured", "success"),
    [
        ("whole", MEASURED, False),
        ("whole", MEASURED | {"upsampled_whole": 0.09}, True),
        (0.1, MEASURED, True),
        (0.0, MEASURED, False),
    ],
)
def test_more_enlarged_boxes_than_stated_are_refused(allowed, measured, success, manifest, tmp_path, expect):
    stated = expect.model_copy(update={"crops": Crops(upsampled=allowed)})
    report, _ = validate(manifest, tmp_path, stated, {"train_glt": measured})
    (check,) = [e for e in report["expectations"] if "crops" in e["name"]]
    assert check["success"] == report["success"] == success
    assert report["crops"] == {"train_glt": measured}
    if not success:
        assert "train_glt: 9.0 % of random boxes are enlarged (median 1.71" in check["examples"][0]
        with pytest.raises(Refused, match=r"9\.0 % of random boxes are enlarged"):
            admit(manifest, report)


def test_without_a_statement_nothing_is_measured(manifest, tmp_path, expect):
    assert "crops" not in validate(manifest, tmp_path, expect)[0]
    assert sharp_crops(manifest, {}, "whole") == ["train_cbl: not measured", "train_glt: not measured"]


def test_only_benchmarks_of_whole_pictures_have_their_datasets(root):
    import pipelines

    specs = load(root / "conf/base", ["digits_glt", "imagenet_glt", "places_lt", "tiny_imagenet_lt"])
    parts = {"originals", "pictures", "picture_sizes", "drawn", "listed", "crops"}
    found = {
        name: {dataset.partition(".")[2] for dataset in pipelines.benchmark(name, spec).datasets()} & parts
        for name, spec in specs.items()
    }
    assert found["digits_glt"] == found["tiny_imagenet_lt"] == set()
    assert found["imagenet_glt"] == {"originals", "drawn", "listed", "crops"}
    assert found["places_lt"] == {"originals", "drawn", "crops"}
    packed = specs["imagenet_glt"].source.model_copy(update={"pictures": "packed", "shorter_side": 256})
    datasets = pipelines.benchmark("x", specs["imagenet_glt"].model_copy(update={"source": packed})).datasets()
    assert {"x.pictures", "x.picture_sizes"} <= datasets


@pytest.mark.parametrize("name", ["imagenet_glt", "imagenet_lt", "mscoco_glt", "places_lt", "inaturalist2018"])
def test_the_rows_of_papers_allow_no_more_enlarged_boxes_than_the_authors(name, root):
    spec = load(root / "conf/base", [name])[name]
    assert spec.expect.crops is not None and spec.expect.crops.upsampled == "whole"


def test_the_number_of_workers_is_no_part_of_a_recipe():
    from ltpipe.recipe.cell import recipe
    from ltpipe.recipe.run import Run

    run = Run(method="ce", split="train")
    changed = tiny.SCHEDULE.with_changes({"workers": 3})
    assert recipe(run, changed, tiny.MODEL) == recipe(run, tiny.SCHEDULE, tiny.MODEL)
