"""RecordIO: our writer against a plain reader, our readers against every layout and any damage."""

import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.formats.recordio import (
    BrokenRecordError,
    RecordReader,
    RecordWriter,
    pack_header,
    pack_image,
    read_property,
    write_property,
)
from data.formats.recordio_blocks import (
    MAGIC_BYTES,
    Block,
    find_records,
    image_columns,
    read_blocks,
    unpack,
)
from tests.data.tiny_records import jpeg, read_plainly, write_records

IMAGES = [(0, jpeg(0)), (0, jpeg(1)), (1, jpeg(2)), (2, jpeg(3)), (2, jpeg(4))]


def write_payloads(folder, payloads):
    rec, idx = os.path.join(str(folder), "a.rec"), os.path.join(str(folder), "a.idx")
    with RecordWriter(rec, idx) as writer:
        for key, payload in enumerate(payloads):
            writer.write(key, payload)
    return rec, idx


def test_writer_lays_out_the_bytes_of_the_format(tmp_path):
    rec, idx = write_payloads(
        tmp_path, [b"abcde", b"1234" + MAGIC_BYTES + b"z", b"x" + MAGIC_BYTES]
    )
    magic, data = MAGIC_BYTES, open(rec, "rb").read()
    first = magic + struct.pack("<I", 5) + b"abcde\0\0\0"
    second = magic + struct.pack("<I", 1 << 29 | 4) + b"1234"
    second += magic + struct.pack("<I", 3 << 29 | 1) + b"z\0\0\0"
    third = magic + struct.pack("<I", 5) + b"x" + magic + b"\0\0\0"
    assert data == first + second + third
    assert open(idx).read() == f"0\t0\n1\t{len(first)}\n2\t{len(first + second)}\n"


def test_header_is_24_bytes_and_array_labels_follow_it():
    assert pack_header(7, 3, 1) == struct.pack("<IfQQ", 0, 7.0, 3, 1)
    assert pack_header([7, 1], 3) == struct.pack("<IfQQff", 2, 0.0, 3, 0, 7.0, 1.0)
    labels, encoded = unpack(pack_image([5, 1], b"image", 9))
    assert labels.tolist() == [5, 1] and encoded == b"image"


@pytest.mark.parametrize("first_key, header", [(1, "first"), (1, "last"), (1, None), (0, None)])
@pytest.mark.parametrize("idx", [True, False])
def test_images_are_found_in_every_layout(tmp_path, first_key, header, idx):
    rec, _ = write_records(tmp_path, IMAGES, first_key, header, idx)
    with RecordReader(rec) as reader:
        found = list(reader)
    assert [(image.label, image.encoded) for image in found] == IMAGES
    if idx:
        assert [image.key for image in found] == list(range(first_key, first_key + len(IMAGES)))


def test_array_labels_of_an_image_do_not_make_it_a_header(tmp_path):
    rec, _ = write_records(tmp_path, [([3, 1], jpeg(0)), ([4, 0, 9.5], jpeg(1))], header=None)
    with RecordReader(rec) as reader:
        assert [image.label for image in reader] == [3, 4]


def test_a_shuffled_index_leads_to_the_same_records(tmp_path):
    rec, idx = write_records(tmp_path, IMAGES)
    lines = open(idx).readlines()
    open(idx, "w").writelines(reversed(lines))
    with RecordReader(rec) as reader:
        assert [reader.read(key).encoded for key in range(1, 6)] == [data for _, data in IMAGES]
        assert reader.read(0).labels.tolist() == [6, 9]
        assert reader.keys()[-1] == 0


def test_reading_by_key_reaches_records_larger_than_the_first_look(tmp_path):
    rec, _ = write_payloads(tmp_path, [pack_image(1, bytes(300000), 0), pack_image(2, b"b", 1)])
    with RecordReader(rec) as reader:
        assert len(reader.read(0).encoded) == 300000 and reader.read(1).encoded == b"b"


payloads = st.lists(
    st.lists(st.sampled_from([MAGIC_BYTES, b"", b"a", b"bc", b"defg"]), max_size=6).map(b"".join),
    min_size=1,
    max_size=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(payloads, st.integers(1, 20))
def test_any_payload_survives_and_blocks_do_not_depend_on_where_reading_began(
    tmp_path, payloads, fours
):
    rec, _ = write_payloads(tmp_path, payloads)
    assert read_plainly(rec) == payloads
    size, grid = os.path.getsize(rec), 4 * fours
    whole = [payload_of(block) for block in read_blocks(rec, block_bytes=grid)]
    assert sum(whole, []) == payloads
    apart = [
        payload_of(block)
        for begin in range(0, size, grid)
        for block in read_blocks(rec, begin, begin + grid, grid)
    ]
    assert apart == whole


def payload_of(block):
    assert not block.broken
    return [bytes(block.payload(i)) for i in range(len(block))]


def test_a_magic_that_the_writer_did_not_cut_is_read_as_data(tmp_path):
    payload = pack_image(1, b"....." + MAGIC_BYTES * 3 + b"..", 0)
    record = MAGIC_BYTES + struct.pack("<I", len(payload)) + payload + bytes(-len(payload) % 4)
    (tmp_path / "a.rec").write_bytes(record * 3)
    with RecordReader(str(tmp_path / "a.rec")) as reader:
        assert [image.encoded for image in reader] == [payload[24:]] * 3


def test_columns_agree_with_records_one_by_one(tmp_path):
    images = [(0, MAGIC_BYTES + b"aaaaaaaa"), ([1, 0], b"b"), (2, b"cc" + MAGIC_BYTES * 2)]
    rec, _ = write_records(tmp_path, images)
    (block,) = read_blocks(rec)
    columns = image_columns(block)
    extents = zip(columns.label_R, columns.start_R, columns.stop_R)
    found = [(int(label), columns.data[a:b].tobytes()) for label, a, b in extents]
    assert found == [(0, images[0][1]), (1, b"b"), (2, images[2][1])]
    assert [labels.tolist() for _, labels in columns.info][0] == [4, 7]
    assert len(columns.info) == 4 and not columns.broken


def damaged(tmp_path, change):
    """train.rec of IMAGES after change(bytearray, offsets)."""
    rec, idx = write_records(tmp_path, IMAGES)
    offsets = dict(map(int, line.split()) for line in open(idx))
    data = bytearray(open(rec, "rb").read())
    data = change(data, offsets) or data
    open(rec, "wb").write(data)
    return rec, offsets


def set_word(data, at, value):
    data[at : at + 4] = struct.pack("<I", value)


def set_label(data, at, value):
    data[at + 12 : at + 16] = struct.pack("<f", value)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda data, at: set_word(data, at[3], 7), "with 0x00000007"),
        (lambda data, at: set_label(data, at[3], np.nan), "label nan"),
        (lambda data, at: set_label(data, at[3], -1), "label -1"),
        (lambda data, at: set_label(data, at[3], 0.5), "label 0.5"),
        (lambda data, at: set_label(data, at[3], np.inf), "label inf"),
        (lambda data, at: set_word(data, at[3] + 4, 12), "12 bytes, too few"),
        (lambda data, at: set_word(data, at[3] + 4, 24), "no image bytes"),
        (lambda data, at: set_word(data, at[3] + 4, (1 << 29) - 4), "more than the"),
        (lambda data, at: set_word(data, at[3] + 4, 50000), "is cut off"),
        (lambda data, at: set_word(data, at[3] + 4, 2 << 29 | 40), "marked 2"),
        (lambda data, at: set_word(data, at[3] + 8, 10**6), "claims 1000000 labels"),
    ],
)
def test_damage_names_file_key_and_byte_and_the_rest_is_read(tmp_path, change, words):
    rec, offsets = damaged(tmp_path, change)
    with RecordReader(rec) as reader:
        with pytest.raises(BrokenRecordError) as caught:
            list(reader)
        told = []
        rest = [image.key for image in reader.images(on_broken=told.append)]
    text = str(caught.value)
    assert text.startswith(f"{rec}: record 3 at byte {offsets[3]} ") and words in text
    assert text.endswith(".") and "\n" not in text
    assert rest == [1, 2, 4, 5] and str(told[0]) == text


def test_a_truncated_file_says_where_it_ends(tmp_path):
    rec, offsets = damaged(tmp_path, lambda data, at: data[: at[4] + 40])
    with RecordReader(rec) as reader, pytest.raises(BrokenRecordError, match="record 4 .*cut off"):
        list(reader)
    rec, offsets = damaged(tmp_path, lambda data, at: data[: at[4] + 5])
    with RecordReader(rec) as reader, pytest.raises(BrokenRecordError, match="first 8 bytes"):
        list(reader)


@pytest.mark.parametrize(
    "offset, words", [(10**9, "past the end"), (6, "inside a record"), (8, "magic")]
)
def test_an_index_that_points_elsewhere_is_told_from_damage(tmp_path, offset, words):
    rec, idx = write_records(tmp_path, IMAGES)
    open(idx, "a").write(f"77\t{offset}\n")
    with RecordReader(rec) as reader, pytest.raises(
        BrokenRecordError, match="record 77 .*" + words
    ):
        reader.read(77)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "a.rec").write_bytes(b"")
    with pytest.raises(ValueError, match="0 bytes"):
        RecordReader(str(tmp_path / "a.rec"))


def test_a_writer_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError):
        with RecordWriter(str(tmp_path / "a.rec"), str(tmp_path / "a.idx")) as writer:
            writer.write(0, b"abc")
            raise RuntimeError
    assert os.listdir(str(tmp_path)) == []


def test_property_is_written_and_read_with_more_lines_or_none(tmp_path):
    path = str(tmp_path / "property")
    assert read_property(path) is None
    write_property(path, 85742, (112, 96))
    open(path, "a").write("5822653\nshuffled\n")
    assert read_property(path) == (85742, (112, 96))
    open(path, "w").write("lots\n")
    with pytest.raises(ValueError, match="identities,height,width"):
        read_property(path)


BASE = b"".join(
    MAGIC_BYTES + struct.pack("<I", len(p)) + p + bytes(-len(p) % 4)
    for p in [pack_header([3, 5], 0), pack_image(0, b"abc", 1), pack_image([1, 1], b"defgh", 2)]
)


@st.composite
def mutations(draw):
    """A small .rec after some flipped words, cut or doubled stretches."""
    data = bytearray(BASE)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["byte", "word", "cut", "insert"]))
        if kind == "byte":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == "word":
            word = draw(st.sampled_from([0, 0xFFFFFFFF, 0xCED7230A, 1 << 29, 3 << 29 | 5, 24, 9]))
            data[at // 4 * 4 : at // 4 * 4 + 4] = struct.pack("<I", word)
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, 12))]
        else:
            data[at:at] = draw(st.sampled_from([MAGIC_BYTES, bytes(4), bytes(3), BASE[:40]]))
    return bytes(data)


@settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_any_bytes_are_read_or_named_and_never_crash(data):
    array = np.frombuffer(data, np.uint8)
    starts, stops, broken, end = find_records(array, array.size, True)
    assert end >= array.size // 4 * 4 - 4 or broken
    assert (starts[1:] >= stops[:-1]).all() and (stops <= array.size).all()
    block = Block(array, 0, end, starts, stops, broken)
    columns = image_columns(block)
    assert len(columns.label_R) + len(columns.info) + len(columns.broken) >= len(starts)
    for i in range(len(columns.label_R)):
        labels, encoded = unpack(block.payload(int(columns.record_R[i])))
        stretch = columns.data[columns.start_R[i] : columns.stop_R[i]].tobytes()
        assert bytes(encoded) == stretch and labels[0] == columns.label_R[i]


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations(), st.integers(2, 30))
def test_the_file_reader_survives_any_bytes_too(tmp_path, data, fours):
    path = str(tmp_path / "any.rec")
    open(path, "wb").write(data or b"\0")
    told = []
    with RecordReader(path) as reader:
        images = list(reader.images(on_broken=told.append))
    assert images or told or len(data) < 60
    grid = [b for block in read_blocks(path, block_bytes=4 * fours) for b in payload_or_none(block)]
    whole = [b for block in read_blocks(path) for b in payload_or_none(block)]
    assert grid == whole


def payload_or_none(block):
    return [bytes(block.payload(i)) for i in range(len(block))]
