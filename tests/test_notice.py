"""The licence of a source: logged once, kept beside the raw files."""

import logging

from ltpipe.data.fetch import fetch
from ltpipe.data.sources import digits


def logged_notices(caplog):
    return [record.getMessage() for record in caplog.records if "Alpaydin" in record.getMessage()]


def test_the_notice_is_logged_once_and_kept_beside_the_data(spec, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ltpipe.data")
    for _ in range(3):
        fetch(spec.source, tmp_path / "raw")
    assert len(logged_notices(caplog)) == 1
    assert (tmp_path / "raw/NOTICE").read_text() == digits.NOTICE


def test_a_changed_notice_is_logged_again(spec, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ltpipe.data")
    (tmp_path / "NOTICE").write_text("of an older version")
    fetch(spec.source, tmp_path)
    assert len(logged_notices(caplog)) == 1
    assert (tmp_path / "NOTICE").read_text() == digits.NOTICE


def test_the_index_is_built_even_if_the_folder_cannot_be_written(spec, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ltpipe.data")
    (tmp_path / "raw").write_text("a file in the folder's place")
    index, notice = fetch(spec.source, tmp_path / "raw")
    assert len(index) == 10782
    assert notice == digits.NOTICE
    assert len(logged_notices(caplog)) == 1
