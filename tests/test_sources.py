"""The digits source: which images it makes, and that they are the same everywhere."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from ltpipe.config.spec import Refused, parse
from ltpipe.data.fetch import COLUMNS, fetch
from ltpipe.data.pack import pack
from ltpipe.data.source import Source
from ltpipe.data.sources.digits import SCHEMES, SIZE, Config, colour_digit, read_images


@pytest.fixture(scope="module")
def drawn():
    """Return every image of the default digits."""
    return read_images(Config(), Path(), [str(row) for row in range(10782)], SIZE)


def test_the_index_has_a_row_for_each_digit_under_every_scheme(index):
    assert tuple(index.columns) == COLUMNS
    assert len(index) == 10782
    assert index["source"].nunique() == 1797
    assert index["image"].is_unique
    assert index["file"].is_unique
    assert index.groupby("source")["attribute"].agg(sorted).map(tuple).unique().tolist() == [(0, 1, 2, 3, 4, 5)]


def test_all_images_of_a_digit_have_one_label_and_its_name(index):
    assert (index.groupby("source")["label"].nunique() == 1).all()
    assert (index["class_name"] == index["label"].astype(str)).all()
    sizes = index.loc[index["attribute"] == 0, "label"].value_counts().sort_index()
    assert sizes.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_every_image_is_16_by_16_in_bytes(drawn):
    assert drawn.shape == (10782, 16, 16, 3)
    assert drawn.dtype == np.uint8


def test_the_default_images_never_change(drawn):
    assert hashlib.sha256(drawn.tobytes()).hexdigest()[:16] == "0d3edeb0decd8cd8"


def test_images_are_in_the_order_of_the_requested_files(drawn):
    some = read_images(Config(), Path(), ["7", "10781", "0"], SIZE)
    assert (some == drawn[[7, 10781, 0]]).all()


def test_another_seed_draws_other_noise(drawn):
    other = read_images(Config(seed=1), Path(), ["0", "1", "2"], SIZE)
    assert (other != drawn[:3]).any(axis=(1, 2, 3)).all()
    assert np.abs(other.astype(int) - drawn[:3]).mean() < 60


def test_the_digits_have_one_size():
    with pytest.raises(Refused, match="16 x 16; size cannot be 32"):
        read_images(Config(), Path(), ["0"], 32)


def test_packed_images_are_those_of_the_manifest(manifest, images, drawn):
    assert len(images) == manifest["image"].nunique()
    files = manifest["file"].astype(int).to_numpy()
    assert (images[manifest["row"].to_numpy()] == drawn[files]).all()


def test_a_source_that_returns_other_images_than_requested_is_an_error(manifest, spec, raw, monkeypatch):
    monkeypatch.setattr("ltpipe.data.sources.digits.read_images", lambda *_: np.zeros((3, 16, 16, 3), np.uint8))
    with pytest.raises(TypeError, match=r"digits\.read_images: uint8 \(3, 16, 16, 3\)"):
        pack(manifest, spec.source, raw)


def test_a_source_whose_index_lacks_a_column_is_an_error(index, spec, raw, monkeypatch):
    monkeypatch.setattr("ltpipe.data.sources.digits.build_index", lambda *_: index.drop(columns="official"))
    with pytest.raises(TypeError, match=r"digits\.build_index: columns "):
        fetch(spec.source, raw)


def test_a_digit_without_noise_is_ink_on_paper():
    ink = np.zeros((8, 8))
    ink[3, 5] = 1.0
    drawn = colour_digit(ink, 0.0, np.random.RandomState(0))
    assert drawn.shape == (6, 16, 16, 3)
    inks = np.zeros((16, 16), bool)
    inks[6:8, 10:12] = True
    for scheme, (dark, paper) in enumerate(SCHEMES):
        assert (drawn[scheme][inks] == dark).all()
        assert (drawn[scheme][~inks] == paper).all()


def test_no_two_schemes_look_alike():
    differences = np.abs(SCHEMES[:, None] - SCHEMES[None]).max(axis=(2, 3))
    assert (differences + np.eye(len(SCHEMES)) * 255 > 60).all()


def test_the_notice_names_authors_and_licence(spec, raw):
    notice = fetch(spec.source, raw)[1]
    assert "Alpaydin" in notice
    assert "CC BY 4.0" in notice


def test_an_unknown_source_is_refused_with_the_valid_names():
    with pytest.raises(Refused, match=r"no 'digit' in ltpipe\.data\.sources; valid names: .*digits"):
        parse(Source, {"name": "digit", "size": 16}, "source")


def test_an_unknown_option_of_a_source_is_refused_with_the_valid_keys():
    with pytest.raises(Refused, match="unknown key nose; valid keys: noise, seed"):
        parse(Source, {"name": "digits", "size": 16, "options": {"nose": 3}}, "source")


@pytest.mark.parametrize("options", [{"noise": -1}, {"seed": -1}, {"seed": 2**32}])
def test_impossible_options_of_the_digits_are_refused(options):
    with pytest.raises(Refused, match=next(iter(options))):
        parse(Config, options, "options")


def test_a_source_depends_on_the_code_of_its_own_module():
    assert Source(name="digits", size=16).modules() == {"ltpipe.data.sources.digits"}
