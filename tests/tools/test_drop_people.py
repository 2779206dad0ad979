"""Shards without given identities, and the checkpoints that have seen them."""

import os

import numpy as np
import pytest

from checkpoint.format import write_record
from data.formats.manifest import Manifest, read_manifest, write_manifest
from data.formats.tfrecord import read_shard, write_frames
from tests.evaluation.tiny_sets import SPEC
from tools import drop_people

LABELS = (0, 2, 1, 2, 0, 3, 1, 2)


@pytest.fixture
def shards(tmp_path):
    """Two shards with eight records of four identities."""
    directory = tmp_path / "faces"
    directory.mkdir()
    counts, total = [], 0
    for number, labels in enumerate((LABELS[:5], LABELS[5:])):
        path = directory / f"train-{number:05d}.tfrecords"
        data = np.arange(10 * len(labels), dtype=np.uint8)
        starts = 10 * np.arange(len(labels))
        descriptor = os.open(str(path), os.O_WRONLY | os.O_CREAT, 0o644)
        _, mixed = write_frames(descriptor, data, np.array(labels), starts, starts + 10)
        os.close(descriptor)
        counts.append((path.name, len(labels)))
        total += mixed
    write_manifest(
        str(directory),
        Manifest(8, 4, tuple(counts), source="faces", checksum=f"{total % (1 << 64):016x}"),
    )
    (directory / "identities.txt").write_text("anna\nben\ncarl\n1\n")
    return str(directory)


def drop(shards, output, *more):
    drop_people.main(["--tfrecords_file_path", shards, "--output_path", str(output)] + list(more))


def all_records(directory):
    names = [name for name, _ in read_manifest(directory).shards]
    return [record for name in names for record in read_shard(os.path.join(directory, name))]


def test_the_other_records_stay_byte_for_byte(shards, tmp_path, capsys):
    drop(shards, tmp_path / "out", "--people", "carl,0")
    kept = [record for record in all_records(shards) if record[0] not in (0, 2)]
    assert all_records(str(tmp_path / "out")) == kept
    manifest = read_manifest(str(tmp_path / "out"))
    assert (manifest.images, manifest.identities, manifest.empty_identities) == (3, 4, 2)
    assert manifest.checksum != read_manifest(shards).checksum
    assert "2 identities with 5 images removed" in capsys.readouterr().out


def test_the_names_of_removed_identities_are_gone_and_the_others_keep_their_line(shards, tmp_path):
    drop(shards, tmp_path / "out", "--people", "ben")
    assert (tmp_path / "out" / "identities.txt").read_text() == "anna\n\ncarl\n1\n"


def test_a_name_comes_before_a_label_of_the_same_text(shards, tmp_path):
    drop(shards, tmp_path / "out", "--people", "1")
    assert 3 not in [label for label, _ in all_records(str(tmp_path / "out"))]


def test_a_second_run_has_nothing_to_do(shards, tmp_path, capsys):
    for _ in range(2):
        drop(shards, tmp_path / "out", "--people", "carl")
    assert "already without" in capsys.readouterr().out


def test_a_file_names_identities_too(shards, tmp_path):
    (tmp_path / "list.txt").write_text("anna\n\nben\n")
    drop(shards, tmp_path / "out", "--people_file", str(tmp_path / "list.txt"))
    assert {label for label, _ in all_records(str(tmp_path / "out"))} == {2, 3}


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--people", "zoe"], "has no image of zoe"),
        (["--people", "anna,ben,carl,3,1"], "has no image of 3|all identities"),
        (["--people", "anna,ben,carl,1"], "all identities of the data set"),
        ([], "pass the identities to remove"),
        (["--people", "0", "--checkpoints", "nowhere"], "nowhere is not a directory"),
    ],
)
def test_mistakes_are_refused_and_leave_nothing(shards, tmp_path, flags, words):
    with pytest.raises(ValueError, match=words):
        drop(shards, tmp_path / "out", *flags)
    assert not (tmp_path / "out").exists()


def test_checkpoints_are_named_by_the_digest_in_their_record(shards, tmp_path, capsys):
    checksum = read_manifest(shards).checksum
    for name, record in {
        "a/InsightFace_iter_1.ckpt": {"dataset": {"checksum": checksum}},
        "b/InsightFace_iter_2.ckpt": {"dataset": {"checksum": "0" * 16}},
        "c/InsightFace_iter_3.ckpt": {
            "dataset": {"checksum": "1" * 16},
            "training": {"finetune": str(tmp_path / "runs" / "a")},
        },
    }.items():
        prefix = tmp_path / "runs" / name
        os.makedirs(str(prefix.parent))
        write_record(str(prefix), dict({"net": SPEC.to_json()}, **record))
    drop(shards, tmp_path / "out", "--people", "0", "--checkpoints", str(tmp_path / "runs"))
    lines = capsys.readouterr().out.splitlines()
    assert "2 of 3 checkpoints have seen them:" in lines
    assert [line.split("runs/")[1] for line in lines if line.startswith("  ")] == [
        "a/InsightFace_iter_1.ckpt",
        "c/InsightFace_iter_3.ckpt",
    ]


def test_a_data_set_made_from_another_has_the_others_digest_too(shards, tmp_path):
    first = read_manifest(shards).checksum
    drop(shards, tmp_path / "out", "--people", "0")
    drop(str(tmp_path / "out"), tmp_path / "out2", "--people", "carl")
    digests = drop_people.digests_of(read_manifest(str(tmp_path / "out2")))
    assert first in digests and len(digests) == 3
