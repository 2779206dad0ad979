"""TFRecord shards as bytes: TensorFlow reads ours, we read TensorFlow's, and damage is named."""

import os
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.formats import crc32c, tfrecord
from data.formats.tfrecord import (
    count_shard,
    example_bytes,
    mix,
    parse_example,
    read_shard,
    write_frames,
)
from runtime.cli import ROOT
from runtime.tf1 import tf

SIZES = [0, 1, 90, 105, 106, 127, 128, 129, 16000, 16383, 16384, 2097152, 300]
LABELS = [0, 1, 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**24, 5, 6, 7, 2**31]


def write_some(path, labels=LABELS, sizes=SIZES):
    """Frames of `sizes` random bytes; returns the images and the checksum."""
    data = np.random.RandomState(3).randint(0, 256, 2 * max(sizes) + 99, np.uint8)
    starts = np.arange(len(sizes)) * 7
    descriptor = os.open(str(path), os.O_CREAT | os.O_WRONLY)
    written, checksum = write_frames(
        descriptor, data, np.array(labels), starts, starts + np.array(sizes)
    )
    os.close(descriptor)
    assert written == os.path.getsize(str(path))
    return [data[a : a + size].tobytes() for a, size in zip(starts, sizes)], checksum


def tensorflow_example(label, encoded, extra=()):
    feature = {
        "image_raw": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    feature.update(extra)
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def test_tensorflow_reads_what_we_write(tmp_path):
    images, _ = write_some(tmp_path / "a.tfrecords")
    found = []
    for record in tf.python_io.tf_record_iterator(str(tmp_path / "a.tfrecords")):
        feature = tf.train.Example.FromString(record).features.feature
        (label,) = feature["label"].int64_list.value
        (image,) = feature["image_raw"].bytes_list.value
        found.append((label, image))
    assert found == list(zip(LABELS, images))


def test_one_example_is_the_same_bytes_as_in_a_frame_and_as_short_as_tensorflows(tmp_path):
    images, _ = write_some(tmp_path / "a.tfrecords")
    records = tf.python_io.tf_record_iterator(str(tmp_path / "a.tfrecords"))
    for label, image, record in zip(LABELS, images, records):
        assert example_bytes(label, image) == record
        assert len(record) == len(tensorflow_example(label, image))


def test_we_read_what_tensorflow_writes(tmp_path):
    path = str(tmp_path / "tran.tfrecords")
    extra = {"name": tf.train.Feature(float_list=tf.train.FloatList(value=[1.5]))}
    with tf.python_io.TFRecordWriter(path) as writer:
        for label in (3, 0, 2**40):
            writer.write(tensorflow_example(label, b"image" * label if label < 9 else b"", extra))
    assert list(read_shard(path)) == [(3, b"image" * 3), (0, b""), (2**40, b"")]
    assert count_shard(path) == (3, 2**40)


def test_checksum_is_the_same_in_any_order_and_adds_up():
    values = np.array([5, 2**32 - 1, 0, 5], np.uint32)
    assert mix(values) == mix(values[::-1])
    assert mix(values) == (mix(values[:1]) + mix(values[1:])) % 2**64
    assert mix(values[:2]) != mix(values[2:])


def test_crc32c_of_the_standard_and_in_numpy_alike():
    assert crc32c.crc32c(b"123456789") == 0xE3069283 and crc32c.crc32c(b"") == 0
    data = np.random.RandomState(0).randint(0, 256, 5000, np.uint8)
    starts, stops = np.array([0, 7, 9, 100, 3]), np.array([0, 8, 1234, 5000, 1234])
    before = np.array([0, 1, 2**32 - 1, 9, 77], np.uint32)
    in_numpy = crc32c.extend_in_numpy(before, data, starts, stops)
    assert in_numpy.tolist() == crc32c.extend(before, data, starts, stops).tolist()
    assert crc32c.extend_rows(before[:1], data[None, 7:50])[0] == crc32c.extend(
        before[:1], data, np.array([7]), np.array([50])
    )


def test_without_tensorflows_library_the_checksums_are_the_same(monkeypatch, tmp_path):
    _, expected = write_some(tmp_path / "a.tfrecords", sizes=[9] * 13)
    monkeypatch.setattr(crc32c, "_native", lambda: (None, None))
    _, checksum = write_some(tmp_path / "b.tfrecords", sizes=[9] * 13)
    assert checksum == expected
    assert (tmp_path / "a.tfrecords").read_bytes() == (tmp_path / "b.tfrecords").read_bytes()


def test_the_native_checksum_is_found_on_this_machine_without_importing_tensorflow():
    words = "import sys; from data.formats import crc32c; print(crc32c._native()[0] is not None)"
    words += "; assert 'tensorflow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", words], stdout=subprocess.PIPE, cwd=ROOT)
    assert done.stdout.strip() == b"True"


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda data: data[:-1], "is cut off"),
        (lambda data: data[: len(data) // 2 + 7], "inside its first 12 bytes"),
        (lambda data: b"\xff" + data[1:], "no TFRecord"),
        (lambda data: data[:60] + b"?" + data[61:], "its checksum is wrong"),
    ],
)
def test_damage_names_the_file_and_the_byte(tmp_path, change, words):
    path = tmp_path / "a.tfrecords"
    write_some(path, [1, 2], [100, 100])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=words) as caught:
        list(read_shard(str(path)))
    assert str(caught.value).startswith(f"{path}: the record at byte ")


@pytest.mark.parametrize(
    "example, words",
    [
        (b"", "no feature 'image_raw'"),
        (tensorflow_example(-3, b"a"), "label -3"),
        (b"\n\xff\xff\xff\xff\x7f", "longer than its message"),
        (b"\n\xff", "does not end"),
        (b"\x0b", "wire type 3"),
        (b"\x08\x01", "a number where"),
        (b"\n\x02\x08\x01", "a number where"),
        (b"\n\x04\n\x02\n\x00", "no feature"),
    ],
    ids=["empty", "negative", "long", "cut", "wire", "number", "nested", "bare"],  # the bytes vary
)
def test_what_is_no_example_is_named(example, words):
    with pytest.raises(ValueError, match=words):
        parse_example(example)


BASE = tensorflow_example(300, b"picture")


@settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.integers(0, len(BASE)), st.integers(0, 255)), max_size=4),
    st.integers(0, len(BASE)),
    st.binary(max_size=6),
)
def test_any_example_parses_or_is_refused(changes, cut, added):
    data = bytearray(BASE)
    for at, value in changes:
        data[at : at + 1] = bytes([value])
    data[cut:cut] = added
    try:
        label, image = parse_example(bytes(data))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert label >= 0 and isinstance(image, bytes) and len(image) <= len(data)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 60), st.binary(max_size=20), st.booleans())
def test_any_shard_is_read_or_refused(tmp_path, at, added, cut):
    path = tmp_path / "a.tfrecords"
    length = struct.pack("<Q", len(BASE))
    tail = struct.pack("<I", crc32c.masked(crc32c.crc32c(BASE)))
    frame = length + struct.pack("<I", crc32c.masked(crc32c.crc32c(length))) + BASE + tail
    data = frame[:at] + added + (b"" if cut else frame[at:])
    path.write_bytes(data)
    try:
        found = list(read_shard(str(path)))
    except ValueError as error:
        assert str(error).startswith(str(path))
    else:
        assert data in (b"", frame) and found == [(300, b"picture")] * bool(data)


def test_an_empty_shard_is_not_counted(tmp_path):
    (tmp_path / "a.tfrecords").write_bytes(b"")
    with pytest.raises(ValueError, match="no record"):
        count_shard(str(tmp_path / "a.tfrecords"))


def test_a_short_write_is_an_error(tmp_path):
    descriptor = os.open(str(tmp_path / "a"), os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError):
        tfrecord.write_vectors(descriptor, [b"abc"], 4)
    os.close(descriptor)
