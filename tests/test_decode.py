"""Image files as arrays: all kinds of files, orientation, order, and clear errors for broken files."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from ltpipe.config.spec import Refused
from ltpipe.data.decode import ADVICE, CHUNK, crop_square, decode, find_broken, to_rgb


def smooth(width, height):
    """Return a picture that JPEG and resizing change little: red grows to the right, green downwards."""
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([across, down, np.full_like(across, 90)], axis=2).round().astype(np.uint8)


def save(path, image, **options):
    image.save(path, **options)
    return path


@pytest.fixture
def jpeg(tmp_path):
    return save(tmp_path / "x.jpg", Image.fromarray(smooth(64, 64)), quality=95)


def test_an_image_of_the_right_size_is_unchanged(tmp_path):
    pixels = smooth(32, 32)
    path = save(tmp_path / "x.png", Image.fromarray(pixels))
    decoded = decode([path], 32)
    assert decoded.dtype == np.uint8
    assert (decoded == pixels).all()


def test_the_shorter_side_is_resized_and_the_centre_kept(tmp_path):
    wide, high = smooth(96, 32), smooth(32, 96)
    paths = [save(tmp_path / "w.png", Image.fromarray(wide)), save(tmp_path / "h.png", Image.fromarray(high))]
    first, second = decode(paths, 32)
    assert (first == wide[:, 32:64]).all()
    assert (second == high[32:64]).all()
    small = decode(paths, 16)
    for decoded, whole in zip(small, (wide[:, 32:64], high[32:64]), strict=True):
        means = whole.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
        assert np.abs(decoded[2:-2, 2:-2].astype(float) - means[2:-2, 2:-2]).max() < 3


def test_fine_stripes_become_grey_and_not_stripes(tmp_path):
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    decoded = decode([save(tmp_path / "x.png", Image.fromarray(stripes))], 32)
    assert np.abs(decoded[0, :, 2:-2].astype(int) - 127).max() < 12


def test_a_small_image_is_enlarged(tmp_path):
    decoded = decode([save(tmp_path / "x.png", Image.new("RGB", (5, 9), (10, 20, 30)))], 32)
    assert (decoded == [10, 20, 30]).all()


def test_a_large_jpeg_is_shrunk_by_its_decoder_to_the_same_picture(tmp_path):
    pixels = smooth(1000, 800)
    paths = [
        save(tmp_path / "x.jpg", Image.fromarray(pixels), quality=95),
        save(tmp_path / "x.png", Image.fromarray(pixels)),
    ]
    first, second = decode(paths, 32).astype(int)
    assert np.abs(first - second).max() < 6


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (77, 255), (77, 77, 77)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("P", 0, (9, 8, 7)),
        ("I;16", 77 * 256 + 5, (77, 77, 77)),
        ("I", 40000, (156, 156, 156)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
    ],
)
def test_every_mode_becomes_rgb(mode, colour, expected, tmp_path):
    image = Image.new(mode, (8, 8), colour)
    if mode == "P":
        image.putpalette([9, 8, 7] * 256)
    path = save(tmp_path / ("x.tif" if mode in ("CMYK", "I") else "x.png"), image)
    assert (decode([path], 4) == expected).all()


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    image = Image.new("P", (8, 8), 3)
    image.putpalette([9, 8, 7] * 256)
    assert (decode([save(tmp_path / "x.gif", image, transparency=3)], 4) == 255).all()


def test_a_cmyk_jpeg_has_its_colours(tmp_path):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red = decode([save(tmp_path / "x.jpg", image, quality=95)], 8)[0]
    assert red[..., 0].min() > 200
    assert red[..., 1:].max() < 60


def test_the_name_of_a_file_does_not_matter(tmp_path):
    path = tmp_path / "x.JPEG"
    Image.fromarray(smooth(16, 16)).save(path, "PNG")
    assert (decode([path], 16) == smooth(16, 16)).all()
    assert find_broken([path]) == {}


def test_a_greyscale_jpeg_has_three_channels(tmp_path):
    path = save(tmp_path / "x.jpg", Image.new("L", (64, 64), 130))
    assert np.abs(decode([path], 16).astype(int) - 130).max() <= 1


def test_floating_point_pixels_are_refused(tmp_path):
    path = save(tmp_path / "x.tif", Image.new("F", (8, 8), 0.5))
    with pytest.raises(Refused, match=r"x\.tif: floating-point pixels"):
        decode([path], 4)
    assert find_broken([path]) == {path: "floating-point pixels"}


def test_32_bit_pixels_are_refused():
    with pytest.raises(ValueError, match="32-bit"):
        to_rgb(Image.new("I", (2, 2), 70000))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_its_camera_says(orientation, tmp_path):
    upright = Image.fromarray(smooth(24, 24))
    stored = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that undoes each orientation
    image = upright.transpose(Image.Transpose(stored[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "x.png", image, exif=exif)
    assert (decode([path], 24) == smooth(24, 24)).all()


def test_a_broken_exif_block_is_ignored(jpeg):
    exif = b"Exif\0\0MM\0\x2a" + b"\xff" * 20
    content = jpeg.read_bytes()
    jpeg.write_bytes(content[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + content[2:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.abs(decode([jpeg], 64)[0].astype(int) - smooth(64, 64)).max() < 12


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("<html>not found</html>")


def folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "truncated"),
        (empty, "the file is empty"),
        (text, "not an image that Pillow knows"),
        (lambda path: path.unlink(), "no such file"),
        (folder, "Is a directory"),
    ],
)
def test_a_file_that_is_no_image_is_named(spoil, message, jpeg):
    spoil(jpeg)
    with pytest.raises(Refused, match=message) as caught:
        decode([jpeg], 32)
    assert caught.value.message.startswith(f"cannot decode {jpeg}: ")


def test_an_image_of_too_many_pixels_is_refused(tmp_path, monkeypatch):
    sizes = {"warned.png": 12, "refused.png": 20}
    paths = [save(tmp_path / name, Image.new("RGB", (side, side))) for name, side in sizes.items()]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for path in paths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(Refused, match="pixels"):
                decode([path], 4)
            assert "pixels" in find_broken([path])[path]


def test_an_image_that_declares_an_enormous_size_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    data = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + data)
    with pytest.raises(Refused, match=r"bomb\.png: .*pixels"):
        decode([tmp_path / "bomb.png"], 32)


def test_images_are_in_the_order_of_the_paths(tmp_path):
    count = 3 * CHUNK + 5
    paths = [save(tmp_path / f"{i}.png", Image.new("RGB", (4, 4), (i % 256, i // 256, 0))) for i in range(count)]
    decoded = decode(paths, 4)
    assert (decoded[:, 0, 0, 0] == np.arange(count) % 256).all()
    assert (decode(paths[::-1], 4) == decoded[::-1]).all()


def test_bad_files_are_named_in_order_with_advice(tmp_path):
    good = save(tmp_path / "good.png", Image.new("RGB", (4, 4)))
    bad = [tmp_path / f"bad{i:02d}.png" for i in range(12)]
    paths = [good] * (2 * CHUNK) + [bad[0]] + [good] * (2 * CHUNK) + bad[1:]
    for _ in range(3):
        with pytest.raises(Refused) as caught:
            decode(paths, 4)
        lines = caught.value.message.splitlines()
        assert lines[0] == f"cannot decode 12 of {len(paths)} files:"
        assert lines[1:11] == [f"  {path}: no such file" for path in bad[:10]]
        assert lines[11:] == ["  and 2 more", f"  {ADVICE}"]


def test_no_paths_give_an_empty_array():
    assert decode([], 32).shape == (0, 32, 32, 3)


def counted(monkeypatch):
    """Return a list that grows by one for every image that is decoded."""
    loaded, load = [], ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: loaded.append(1) or load(self))
    return loaded


def test_intact_files_are_checked_by_header_and_end_without_decoding(tmp_path, jpeg, monkeypatch):
    other = save(tmp_path / "x.png", Image.new("RGB", (4, 4)))
    loaded = counted(monkeypatch)
    assert find_broken([other, jpeg]) == {}
    assert loaded == []
    empty(other)
    assert find_broken([jpeg, other]) == {other: "the file is empty"}


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("name", "options"), [("x.jpg", {"quality": 95}), ("y.jpg", {"progressive": True}), ("x.png", {}), ("x.bmp", {})]
)
def test_a_truncated_file_is_found_before_it_is_packed(name, options, share, tmp_path):
    noise = np.random.RandomState(0).randint(0, 256, (120, 120, 3)).astype(np.uint8)
    path = save(tmp_path / name, Image.fromarray(noise), **options)
    assert find_broken([path]) == {}
    cut(path, share)
    assert list(find_broken([path])) == [path]
    with pytest.raises(Refused, match=name):
        decode([path], 32)


def test_bytes_after_the_end_of_an_image_do_not_matter(jpeg, monkeypatch):
    jpeg.write_bytes(jpeg.read_bytes() + b"\0" * 1000)
    loaded = counted(monkeypatch)
    assert find_broken([jpeg]) == {}
    assert loaded == []


@pytest.mark.parametrize("side", [16, 64, 700])
def test_an_image_without_its_end_mark_is_broken_only_if_it_cannot_be_decoded(side, tmp_path):
    path = save(tmp_path / "x.jpg", Image.fromarray(smooth(side, side)), quality=95)
    content = path.read_bytes()
    assert content.endswith(b"\xff\xd9")
    path.write_bytes(content[:-2])
    try:
        decode([path], side)
    except Refused:
        assert list(find_broken([path])) == [path]
    else:
        assert find_broken([path]) == {}


def test_a_link_stands_for_its_target(tmp_path, jpeg):
    (tmp_path / "link.jpg").symlink_to(jpeg)
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert (decode([tmp_path / "link.jpg"], 32) == decode([jpeg], 32)).all()
    reasons = find_broken([tmp_path / name for name in ("link.jpg", "nowhere.jpg", "loop.jpg")])
    assert {path.name for path in reasons} == {"nowhere.jpg", "loop.jpg"}
    assert reasons[tmp_path / "nowhere.jpg"] == "no such file"


def test_a_crop_gets_the_uncropped_image(tmp_path):
    path = save(tmp_path / "x.png", Image.fromarray(smooth(100, 60)))
    boxes = [(0, 0, 8, 8), (50, 20, 58, 28)]
    decoded = decode([path] * 2, 8, lambda image, i: image.crop(boxes[i]))
    assert (decoded[0] == smooth(100, 60)[:8, :8]).all()
    assert (decoded[1] == smooth(100, 60)[20:28, 50:58]).all()


def test_the_square_of_an_odd_difference_is_one_pixel_off_centre():
    pixels = smooth(33, 32)
    assert (np.asarray(crop_square(Image.fromarray(pixels), 32)) == pixels[:, :32]).all()


def test_an_image_from_memory_can_be_converted():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (1, 2, 3)).save(buffer, "PNG")
    assert to_rgb(Image.open(buffer)).getpixel((0, 0)) == (1, 2, 3)
