"""The licence of a source: said once, kept beside the raw files."""

import logging

from ltpipe.data.fetch import fetch
from ltpipe.data.sources import digits


def said(caplog):
    return [record.getMessage() for record in caplog.records if "Alpaydin" in record.getMessage()]


def test_the_notice_is_said_once_and_kept_beside_the_data(spec, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ltpipe.data")
    for _ in range(3):
        fetch(spec.source, tmp_path / "raw")
    assert len(said(caplog)) == 1
    assert (tmp_path / "raw/NOTICE").read_text() == digits.NOTICE


def test_another_notice_is_said_again(spec, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ltpipe.data")
    (tmp_path / "NOTICE").write_text("of an older version")
    fetch(spec.source, tmp_path)
    assert len(said(caplog)) == 1
    assert (tmp_path / "NOTICE").read_text() == digits.NOTICE


def test_a_folder_that_cannot_be_written_costs_no_data(spec, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ltpipe.data")
    (tmp_path / "raw").write_text("a file in the folder's place")
    index, notice = fetch(spec.source, tmp_path / "raw")
    assert len(index) == 10782
    assert notice == digits.NOTICE
    assert len(said(caplog)) == 1
