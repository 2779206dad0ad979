"""The .idx: read in pieces of any size, looked up both ways, and held against its .rec."""

import numpy as np
import pytest

from data.formats.record_index import (
    RecordIndex,
    find_keys,
    index_faults,
    index_pieces,
    read_index,
    summarise,
)
from data.formats.tfrecord import mix
from tests.data.tiny_records import jpeg, write_records

LINES = "5\t40\n0\t900\n12\t8\n"


@pytest.fixture
def idx(tmp_path):
    (tmp_path / "a.idx").write_text(LINES)
    return str(tmp_path / "a.idx")


@pytest.mark.parametrize("piece_bytes", [1, 3, 6, 7, 1000])
@pytest.mark.parametrize("end", ["", "no newline"])
def test_pieces_of_any_size_give_the_same_lines(tmp_path, piece_bytes, end):
    path = tmp_path / "a.idx"
    path.write_text(LINES[:-1] if end else LINES)
    pieces = list(index_pieces(str(path), piece_bytes))
    assert np.concatenate([key for key, _ in pieces]).tolist() == [5, 0, 12]
    assert np.concatenate([offset for _, offset in pieces]).tolist() == [40, 900, 8]


def test_lookups_go_both_ways(idx):
    index = RecordIndex(idx)
    assert index.keys() == [5, 0, 12]
    assert [index.offset(key) for key in (0, 5, 12, 1, 99, -1)] == [900, 40, 8, None, None, None]
    assert index.keys_of([8, 9, 40, 900, 1000]) == [12, None, 5, 0, None]
    assert index.keys_of([]) == []
    assert find_keys(idx, [900, 8, 7]) == {900: 0, 8: 12}


def test_a_key_that_is_there_twice_means_its_last_line_as_in_mxnet(tmp_path):
    (tmp_path / "a.idx").write_text("1\t8\n2\t40\n1\t80\n")
    assert RecordIndex(str(tmp_path / "a.idx")).offset(1) == 80


def test_summary_counts_and_finds_the_header(idx):
    assert summarise(idx) == (3, mix(np.array([8, 40, 900])), 900)


def test_windows_line_ends_are_read(tmp_path):
    (tmp_path / "a.idx").write_bytes(b"1\t8\r\n2\t40\r\n")
    assert read_index(str(tmp_path / "a.idx"))[1].tolist() == [8, 40]


@pytest.mark.parametrize(
    "text", ["1\t2\nx\ty\n", "1 2 3\n4\n", "1\t2.5\n", "1\n2\n", "1\t2\n\n3\n"]
)
def test_other_lines_are_named(tmp_path, text):
    (tmp_path / "a.idx").write_text(text)
    with pytest.raises(ValueError, match=r"a.idx: line \d is '.*', not key<tab>offset"):
        read_index(str(tmp_path / "a.idx"))


def test_faults_name_each_line_that_points_at_no_record(tmp_path):
    rec, idx = write_records(tmp_path, [(0, jpeg(0)), (1, jpeg(1))])
    assert list(index_faults(idx, rec)) == []
    with open(idx, "a") as stream:
        stream.write("7\t0\n8\t4\n9\t99999999\n")
    assert [(key, offset) for key, offset, _ in index_faults(idx, rec)] == [
        (7, 0),
        (8, 4),
        (9, 99999999),
    ]
