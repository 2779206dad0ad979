"""dataset.json: what is written is read, what does not fit the shards is refused."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from data.formats.manifest import COUNT, FILE, UNFINISHED, Manifest, read_manifest, write_manifest
from data.formats.tfrecord import example_bytes
from runtime.cli import ROOT
from runtime.tf1 import tf
from tests.data.tiny_records import jpeg


def write_shard(path, labels):
    with tf.python_io.TFRecordWriter(str(path)) as writer:
        for label in labels:
            writer.write(example_bytes(label, jpeg(label)))
    return os.path.getsize(str(path))


@pytest.fixture
def described(tmp_path):
    sizes = [write_shard(tmp_path / f"{name}.tfrecords", [0, 2]) for name in "ab"]
    manifest = Manifest(
        images=4,
        identities=3,
        shards=(("a.tfrecords", 2), ("b.tfrecords", 2)),
        shard_bytes=tuple(sizes),
        image_size=(16, 16),
        seed=7,
        source="train.rec",
        checksum="0123456789abcdef",
        skipped=1,
        skipped_records=("train.rec: record 1 at byte 8 is cut off.",),
        empty_identities=1,
        conversion={"seed": 7},
    )
    write_manifest(str(tmp_path), manifest)
    return tmp_path, manifest


def test_a_manifest_is_read_as_it_was_written(described):
    folder, manifest = described
    assert read_manifest(str(folder)) == manifest
    assert set(manifest.identity) == {"images", "identities", "source", "checksum"}


def test_tensorflows_file_system_can_be_passed(described):
    folder, manifest = described
    assert read_manifest(str(folder), files=tf.io.gfile) == manifest


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(images=5), "do not add up"),
        (dict(identities=0), "identities is 0"),
        (dict(format=2), "another version"),
        (dict(shards=None), "TypeError"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(described, change, words):
    path = described[0] / FILE
    path.write_text(json.dumps(dict(json.loads(path.read_text()), **change)))
    with pytest.raises(ValueError, match=words) as caught:
        read_manifest(str(described[0]))
    assert str(path) in str(caught.value)


def test_a_manifest_that_is_no_json_is_refused(described):
    (described[0] / FILE).write_text("{")
    with pytest.raises(ValueError, match="does not describe a data set"):
        read_manifest(str(described[0]))


def test_a_missing_or_shortened_shard_is_refused(described):
    folder, manifest = described
    shard = folder / "b.tfrecords"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ValueError, match="b.tfrecords has .* bytes, but dataset.json says"):
        read_manifest(str(folder))
    shard.unlink()
    with pytest.raises(ValueError, match="b.tfrecords is missing"):
        read_manifest(str(folder))


def test_no_directory_and_an_empty_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is not there"):
        read_manifest(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="neither dataset.json nor files named"):
        read_manifest(str(tmp_path))


def test_an_unfinished_conversion_is_refused(described):
    (described[0] / UNFINISHED).write_text("{}")
    with pytest.raises(ValueError, match="unfinished"):
        read_manifest(str(described[0]))


def test_plain_shards_are_counted_once(tmp_path, monkeypatch):
    sizes = (
        write_shard(tmp_path / "a.tfrecords", [0, 9]),
        write_shard(tmp_path / "b.tfrecords", [4]),
    )
    manifest = read_manifest(str(tmp_path))
    assert (manifest.images, manifest.identities) == (3, 10)
    assert manifest.shards == (("a.tfrecords", 2), ("b.tfrecords", 1))
    assert manifest.shard_bytes == sizes and (tmp_path / COUNT).exists()
    monkeypatch.setattr("data.formats.manifest.count_shard", None)
    assert read_manifest(str(tmp_path)) == manifest


COUNTING = """
import sys
from data.formats import manifest
count = manifest.count_shard
def together(path):
    print("counting", flush=True)
    sys.stdin.readline()
    return count(path)
manifest.count_shard = together
print(manifest.read_manifest(sys.argv[1]).images)
"""


def test_processes_that_start_together_count_alike_and_leave_one_count(tmp_path):
    write_shard(tmp_path / "a.tfrecords", [0, 1, 5])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", COUNTING, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            universal_newlines=True,
        )
        for _ in range(3)
    ]
    assert {child.stdout.readline() for child in started} == {"counting\n"}  # nobody found a count
    assert {child.communicate("\n")[0] for child in started} == {"3\n"}
    assert sorted(os.listdir(str(tmp_path))) == ["a.tfrecords", COUNT]
    assert read_manifest(str(tmp_path)).images == 3


def test_a_count_is_taken_again_when_a_shard_comes_or_changes(tmp_path):
    write_shard(tmp_path / "a.tfrecords", [0, 1])
    assert read_manifest(str(tmp_path)).images == 2
    write_shard(tmp_path / "b.tfrecords", [2])
    assert read_manifest(str(tmp_path)).images == 3
    write_shard(tmp_path / "a.tfrecords", [0, 1, 2])
    assert read_manifest(str(tmp_path)).images == 4


def test_one_file_by_its_name_is_a_data_set(tmp_path):
    write_shard(tmp_path / "tran.tfrecords", [0, 1, 5])
    manifest = read_manifest(str(tmp_path / "tran.tfrecords"))
    assert (manifest.images, manifest.identities) == (3, 6)
    assert manifest.shards == (("tran.tfrecords", 3),)


def test_a_manifest_replaces_the_old_one_whole(described):
    folder, manifest = described
    write_manifest(str(folder), dataclasses.replace(manifest, seed=8))
    assert read_manifest(str(folder)).seed == 8
    assert not [name for name in os.listdir(str(folder)) if "incomplete" in name]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"identities": 1e308}, "identities is 1e[+]308, not a whole number"),
        ({"identities": 2.5}, "identities is 2.5"),
        ({"identities": True}, "identities is True"),
        ({"identities": 10**30}, "identities is huge"),
        ({"images": 10**30}, "images is huge"),
        ({"shards": [{"name": "a", "images": -8}, {"name": "b", "images": 24}]}, "is -8, not"),
        ({"shards": [{"name": "../a", "images": 16}]}, "'../a' is not a plain file name"),
        ({"shards": [{"name": "/etc/passwd", "images": 16}]}, "is not a plain file name"),
        ({"shards": [{"name": ["a"], "images": 16}]}, "is not a plain file name"),
        ({"image_size": "ab"}, "image_size is 'a'"),
        ({"image_size": [112]}, "image_size is not a height and a width"),
        ({"source": 7}, "source is not text"),
    ],
)
def test_each_field_has_a_type_and_a_range(tmp_path, change, reason):
    write_manifest(str(tmp_path), Manifest(16, 4, (("a.tfrecords", 16),)))
    path = tmp_path / FILE
    content = json.loads(path.read_text())
    content.update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"{FILE} does not describe a data set.*{reason}"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize("content", [b"[" * 10**5, b"\xff\xfe{", b'{"a": ' + b"9" * 10**5 + b"}"])
def test_deep_endless_and_undecodable_json_is_one_sentence(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(ValueError, match=f"{FILE} does not describe a data set"):
        read_manifest(str(tmp_path))
