"""Conversion: every image once, in one order whoever converts, and nothing half-written."""

import collections
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from data import mx2tfrecords
from data.convert import shuffle
from data.formats.manifest import UNFINISHED, read_manifest
from data.formats.recordio import RecordWriter, pack_image
from data.formats.recordio_blocks import MAGIC_BYTES
from data.formats.tfrecord import read_shard
from runtime.cli import ROOT
from tests.data.tiny_records import jpeg, write_records

JPEGS = [jpeg(seed) for seed in range(40)]
IMAGES = [(seed // 4, encoded) for seed, encoded in enumerate(JPEGS)]
SCRIPT = os.path.join(ROOT, "data", "mx2tfrecords.py")


def convert(rec, out, *words):
    """Converts in this process; returns the manifest."""
    mx2tfrecords.main(["--bin_path", str(rec), "--tfrecords_file_path", str(out)] + list(words))
    return read_manifest(str(out))


def content(out):
    """[(label, image)] of all shards in their order."""
    shards = [name for name, _ in read_manifest(str(out)).shards]
    return [item for name in shards for item in read_shard(os.path.join(str(out), name))]


def shard_bytes(out):
    return [
        open(os.path.join(str(out), name), "rb").read()
        for name in sorted(os.listdir(str(out)))
        if name.endswith(".tfrecords")
    ]


def refusal(rec, out, *words):
    """The sentence that a conversion ends with; nothing may be left of it."""
    with pytest.raises((ValueError, OSError)) as caught:
        convert(rec, out, *words)
    folder = os.path.dirname(str(out))
    assert not os.path.exists(str(out)) and not os.path.exists(f"{out}.incomplete"), os.listdir(
        folder
    )
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture
def rec(tmp_path):
    return write_records(tmp_path, IMAGES)[0]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks and buckets so small that a small file has many of them."""
    monkeypatch.setattr(shuffle, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(shuffle, "BUCKET_BYTES", 1 << 12)
    monkeypatch.setattr(shuffle.read_blocks, "__defaults__", (0, None, 1 << 12))


@pytest.mark.parametrize("first_key, header", [(1, "first"), (1, "last"), (1, None), (0, None)])
@pytest.mark.parametrize("idx", [True, False])
def test_every_layout_gives_every_image_once_with_its_bytes(tmp_path, first_key, header, idx):
    rec, _ = write_records(tmp_path, IMAGES, first_key, header, idx)
    manifest = convert(rec, tmp_path / "out", "--shards", "3")
    assert sorted(content(tmp_path / "out")) == sorted(IMAGES)
    assert (manifest.images, manifest.identities, manifest.skipped) == (40, 10, 0)
    assert manifest.image_size == (16, 16) and manifest.source == "train.rec"
    assert [name for name, _ in manifest.shards][0] == "train-00000-of-00003.tfrecords"
    assert not os.path.exists(str(tmp_path / "out") + ".incomplete")


def test_array_labels_odd_payloads_and_other_encodings_are_images(tmp_path):
    images = [([2, 1], jpeg(0)), ([1, 0, 5.5], jpeg(1, extension=".png"))]
    images += [(0, jpeg(2)[:-2] + MAGIC_BYTES + bytes(-len(jpeg(2)) % 4) + b"\xff\xd9")]
    rec, _ = write_records(tmp_path, images, header=None)
    convert(rec, tmp_path / "out")
    assert sorted(content(tmp_path / "out")) == sorted((int(np.ravel(a)[0]), b) for a, b in images)


def test_without_shuffling_the_order_is_the_files(rec, tmp_path):
    manifest = convert(rec, tmp_path / "out", "--no_shuffle", "--shards", "4")
    assert content(tmp_path / "out") == IMAGES
    assert manifest.seed is None


def test_shuffling_mixes_all_and_depends_on_the_seed(rec, tmp_path):
    checksums = set()
    orders = []
    for seed in ("0", "1"):
        out = tmp_path / seed
        checksums.add(convert(rec, out, "--shards", "2", "--shuffle_seed", seed).checksum)
        orders.append(content(out))
    checksums.add(convert(rec, tmp_path / "plain", "--no_shuffle").checksum)
    assert len(checksums) == 1 and orders[0] != orders[1] and orders[0] != IMAGES
    half = [label for label, _ in orders[0][:20]]
    assert len(set(half)) >= 8  # of ten identities: a sorted file would show five


@pytest.mark.parametrize("words", [[], ["--no_shuffle"], ["--remap_labels", "--no_shuffle"]])
def test_shards_do_not_depend_on_the_number_of_workers(tmp_path, small_blocks, words):
    images = [(3 * label, encoded) for label, encoded in IMAGES]
    rec, _ = write_records(tmp_path, images, header=None)
    for workers in ("1", "2", "3"):
        convert(rec, tmp_path / workers, "--workers", workers, "--shards", "5", *words)
    assert shard_bytes(tmp_path / "1") == shard_bytes(tmp_path / "2") == shard_bytes(tmp_path / "3")
    assert len(content(tmp_path / "1")) == 40


def test_many_buckets_a_shard_still_give_each_image_once(tmp_path, small_blocks):
    rec, _ = write_records(tmp_path, IMAGES)
    convert(rec, tmp_path / "out", "--shards", "2")
    assert sorted(content(tmp_path / "out")) == sorted(IMAGES)


def test_shares_of_every_identity_are_even_over_shards(tmp_path):
    rec, _ = write_records(tmp_path, [(i // 100, JPEGS[0]) for i in range(1000)])
    manifest = convert(rec, tmp_path / "out", "--shards", "4")
    assert {count for _, count in manifest.shards} == {250}
    labels = [label for label, _ in content(tmp_path / "out")[:250]]
    assert min(collections.Counter(labels).values()) > 8  # 25 expected of each, 4.3 deviation


def test_more_shards_than_images_gives_as_many_as_hold_some(tmp_path):
    rec, _ = write_records(tmp_path, IMAGES[:3])
    assert len(convert(rec, tmp_path / "out", "--shards", "16").shards) == 3


@pytest.mark.parametrize("order", [[], ["--no_shuffle"]])
def test_gaps_stay_or_are_numbered_anew(tmp_path, order):
    rec, _ = write_records(tmp_path, [(7, JPEGS[0]), (2, JPEGS[1]), (7, JPEGS[2])], header=None)
    manifest = convert(rec, tmp_path / "gaps", *order)
    assert (manifest.identities, manifest.empty_identities) == (8, 6)
    manifest = convert(rec, tmp_path / "anew", "--remap_labels", *order)
    assert (manifest.identities, manifest.remapped_labels) == (2, (2, 7))
    assert sorted(content(tmp_path / "anew")) == sorted(
        [(1, JPEGS[0]), (0, JPEGS[1]), (1, JPEGS[2])]
    )


def test_an_index_that_leaves_records_out_chooses_the_others(rec, tmp_path):
    lines = open(str(tmp_path / "train.idx")).readlines()
    kept = [line for line in lines if int(line.split("\t")[0]) not in (3, 4)]
    (tmp_path / "train.idx").write_text("".join(kept))
    convert(rec, tmp_path / "out")
    assert sorted(content(tmp_path / "out")) == sorted(IMAGES[:2] + IMAGES[4:])


def test_converting_again_does_nothing_and_other_flags_are_refused(rec, tmp_path, capsys):
    convert(rec, tmp_path / "out", "--shards", "2")
    before = os.stat(str(tmp_path / "out" / "dataset.json")).st_mtime_ns
    convert(rec, tmp_path / "out", "--shards", "2", "--workers", "1")
    assert "nothing to do" in capsys.readouterr().out
    assert os.stat(str(tmp_path / "out" / "dataset.json")).st_mtime_ns == before
    for words in (["--shards", "3"], ["--shards", "2", "--shuffle_seed", "1"]):
        with pytest.raises(ValueError, match="already holds another data set"):
            convert(rec, tmp_path / "out", *words)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").write_text("mine")
    with pytest.raises(ValueError, match="not empty and holds no dataset.json"):
        convert(rec, tmp_path / "else")
    with pytest.raises(ValueError, match="is a file"):
        convert(rec, rec)


def offsets(tmp_path):
    return dict(map(int, line.split()) for line in open(str(tmp_path / "train.idx")))


def patch(rec, at, data):
    with open(rec, "r+b") as stream:
        stream.seek(at)
        stream.write(data)


DAMAGE = [
    (0, b"\0\0\0\0", "does not start with the magic"),
    (12, struct.pack("<f", np.nan), "has label nan"),
    (12, struct.pack("<f", -3), "has label -3"),
    (12, struct.pack("<f", 3e7), "has label 30000000, above"),
    (32, b"GIF8", "neither JPEG nor PNG"),
    (4, struct.pack("<I", 30), "a JPEG that is cut off"),
    (4, struct.pack("<I", 24), "no image bytes"),
    (4, struct.pack("<I", 1 << 28), "more than"),
]


@pytest.mark.parametrize("within, data, words", DAMAGE)
@pytest.mark.parametrize("order", [[], ["--no_shuffle"]])
def test_a_broken_record_ends_it_or_is_skipped_and_listed(
    rec, tmp_path, within, data, words, order
):
    at = offsets(tmp_path)[7]
    patch(rec, at + within, data)
    text = refusal(rec, tmp_path / "out", *order)
    assert text.startswith(f"{rec}: record 7 at byte {at} ") and words in text
    manifest = convert(rec, tmp_path / "out", "--on_error", "skip", *order)
    assert manifest.skipped_records[0] == text  # a wrong length spoils what follows it, too
    assert manifest.skipped == len(manifest.skipped_records) <= 2
    assert sorted(content(tmp_path / "out")) == sorted(IMAGES[:6] + IMAGES[7:])


def test_a_jpeg_that_is_cut_off_and_one_that_does_not_decode(tmp_path):
    garbage = JPEGS[1][:40] + bytes(200) + JPEGS[1][-2:]
    rec, _ = write_records(tmp_path, [(0, JPEGS[0]), (0, JPEGS[2][:-90]), (0, garbage)])
    assert "record 2 " in refusal(rec, tmp_path / "out")
    assert "a JPEG that is cut off" in refusal(rec, tmp_path / "out")
    manifest = convert(rec, tmp_path / "out", "--on_error", "skip", "--decode")
    assert manifest.skipped == 2 and "cannot be decoded" in manifest.skipped_records[1]


def test_max_errors_bounds_what_is_skipped(rec, tmp_path):
    for key in (3, 5, 9):
        patch(rec, offsets(tmp_path)[key] + 32, b"....")
    text = refusal(rec, tmp_path / "out", "--on_error", "skip", "--max_errors", "2")
    assert "more than --max_errors 2" in text
    words = ["--on_error", "skip", "--max_errors", "3"]
    assert convert(rec, tmp_path / "out", *words).skipped == 3


def test_a_label_above_num_output_is_refused_with_what_to_pass(rec, tmp_path):
    text = refusal(rec, tmp_path / "out", "--num_output", "9")
    assert "record 37 " in text and "pass --num_output 10 or more" in text
    convert(rec, tmp_path / "out", "--num_output", "10")


def test_truncated_files_are_refused(rec, tmp_path):
    whole, at = open(rec, "rb").read(), offsets(tmp_path)
    open(rec, "wb").write(whole[: at[30] + 100])
    assert f"record 30 at byte {at[30]} is cut off" in refusal(rec, tmp_path / "out")
    os.remove(str(tmp_path / "train.idx"))
    assert f"a record at byte {at[30]} is cut off" in refusal(rec, tmp_path / "out")
    manifest = convert(rec, tmp_path / "out", "--on_error", "skip")
    assert (manifest.images, manifest.skipped) == (29, 1)


def test_a_header_that_promises_more_images_is_refused(tmp_path):
    rec, idx = write_records(tmp_path, IMAGES)
    at = offsets(tmp_path)
    data = open(rec, "rb").read()
    open(rec, "wb").write(data[: at[39]])
    kept = [line for line in open(idx) if int(line.split()[0]) < 39]
    open(idx, "w").writelines(kept)
    text = refusal(rec, tmp_path / "out")
    assert "record 0 at byte 0 says that there are 40 images, but 38 were found" in text
    os.remove(idx)
    assert "says that there are 40 images" in refusal(rec, tmp_path / "out")


@pytest.mark.parametrize(
    "line, words",
    [
        ("99\t99999999\n", "record 99 at byte 99999999 is past the end"),
        ("99\t48\n", "record 99 at byte 48 does not start there"),
        ("99\t0\n", "record 99 at byte 0 is listed twice"),
        ("some words\n", "line 52 is 'some words'"),
        ("5\n", "line 52 is '5'"),
        ("5\t-7\n", "line 52 is '5"),
    ],
)
def test_an_index_of_something_else_is_refused(rec, tmp_path, line, words):
    with open(str(tmp_path / "train.idx"), "a") as stream:
        stream.write(line)
    assert words in refusal(rec, tmp_path / "out")


def test_empty_files_and_files_without_images_are_refused(rec, tmp_path):
    (tmp_path / "train.idx").write_text("")
    assert "train.idx is empty" in refusal(rec, tmp_path / "out")
    (tmp_path / "empty.rec").write_bytes(b"")
    assert "0 bytes" in refusal(tmp_path / "empty.rec", tmp_path / "out")
    (tmp_path / "text.rec").write_bytes(b"this is no record file at all")
    assert "magic" in refusal(tmp_path / "text.rec", tmp_path / "out")
    text = refusal(tmp_path / "text.rec", tmp_path / "out", "--on_error", "skip")
    assert "holds no image" in text
    assert "none.rec" in refusal(tmp_path / "none.rec", tmp_path / "out")


def test_too_little_room_is_said_before_anything_is_written(rec, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 1000))
    assert "0.0 MB free" in refusal(rec, tmp_path / "out")


def test_nothing_in_the_directory_of_work_can_be_taken_for_shards(rec, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mx2tfrecords, "write_manifest", killed)
    with pytest.raises(KeyboardInterrupt):
        convert(rec, tmp_path / "out")
    assert UNFINISHED in os.listdir(str(tmp_path / "out.incomplete"))
    with pytest.raises(ValueError, match="unfinished"):
        read_manifest(str(tmp_path / "out.incomplete"))
    monkeypatch.undo()
    convert(rec, tmp_path / "out")
    assert sorted(content(tmp_path / "out")) == sorted(IMAGES)


def test_a_directory_in_the_way_is_left_alone(rec, tmp_path):
    (tmp_path / "out.incomplete").mkdir()
    (tmp_path / "out.incomplete" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="was not made here"):
        convert(rec, tmp_path / "out")
    assert (tmp_path / "out.incomplete" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("order", [[], ["--no_shuffle"]])
def test_an_index_can_leave_broken_records_out(rec, tmp_path, order):
    patch(rec, offsets(tmp_path)[7], b"\0\0\0\0")
    lines = open(str(tmp_path / "train.idx")).readlines()
    kept = [line for line in lines if not line.startswith("7\t")]
    (tmp_path / "train.idx").write_text("".join(kept))
    convert(rec, tmp_path / "out", *order)
    assert sorted(content(tmp_path / "out")) == sorted(IMAGES[:6] + IMAGES[7:])


def run_script(rec, out, *words, **options):
    command = [sys.executable, SCRIPT, "--bin_path", str(rec), "--tfrecords_file_path", str(out)]
    return subprocess.run(
        command + list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def test_the_script_ends_with_one_sentence_and_exit_code_2(rec, tmp_path):
    done = run_script(rec, tmp_path / "out", "--workers", "2")
    assert (done.returncode, done.stderr) == (
        0,
        b"",
    ) and b"40 images of 10 identities" in done.stdout
    patch(rec, offsets(tmp_path)[7], b"\0\0\0\0")
    done = run_script(rec, tmp_path / "other", "--workers", "2")
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert done.stderr.startswith(f"error: {rec}: record 7 at byte".encode())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_full_disk_leaves_nothing_behind(rec, tmp_path, workers):
    def limit():  # writing past it fails as a full disk does, with another number
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    words = ["--workers", workers, "--shards", "2"]
    done = run_script(rec, tmp_path / "out", *words, preexec_fn=limit)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1
    assert b"while writing" in done.stderr and b"Nothing was left behind" in done.stderr
    assert sorted(os.listdir(str(tmp_path))) == ["train.idx", "train.rec"]
    assert run_script(rec, tmp_path / "out", *words).returncode == 0


def test_a_place_that_cannot_be_written_is_named(rec):
    done = run_script(rec, "/proc/tfrecords")
    assert (
        done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"/proc/tfrecords" in done.stderr
    )


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """A .rec of 55 MB: its conversion has a midst."""
    folder = tmp_path_factory.mktemp("larger")
    rec, idx = str(folder / "train.rec"), str(folder / "train.idx")
    with RecordWriter(rec, idx) as writer:
        for key in range(6000):
            writer.write(
                key, pack_image(key // 60, JPEGS[key % 40][:-2] + bytes(9000) + b"\xff\xd9", key)
            )
    return rec


# A conversion that sends itself a signal, once a file of that name is in its work directory.
ENDING = """
import os, signal, sys
from data import mx2tfrecords
from data.convert import worker_pool
from runtime.cli import run
number, moment, work = int(sys.argv[1]), sys.argv[2], sys.argv[3]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
receive = worker_pool._receive
def receive_and_end(*words):
    if any(name.startswith(moment) for name in os.listdir(work)):
        worker_pool._receive = receive
        os.kill(os.getpid(), number)
    receive(*words)
worker_pool._receive = receive_and_end
run(mx2tfrecords.main, sys.argv[4:])
"""


def ended(number, moment, work, words):
    """The finished process of a conversion that a signal met in its midst."""
    command = [sys.executable, "-c", ENDING, str(int(number)), moment, work]
    return subprocess.run(
        command + words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60
    )


@pytest.mark.parametrize("moment", ["bucket-", "shard-00000.part.json"])
def test_a_killed_conversion_is_not_taken_for_done_and_running_again_completes_it(
    larger, tmp_path, moment
):
    words = ["--bin_path", larger, "--shards", "8", "--workers", "2", "--tfrecords_file_path"]
    expected = tmp_path / "expected"
    mx2tfrecords.main(words + [str(expected)])
    out, work = tmp_path / "out", str(tmp_path / "out.incomplete")
    done = ended(signal.SIGKILL, moment, work, words + [str(out)])
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists() and os.path.isdir(work)
    with pytest.raises(ValueError, match="unfinished"):
        read_manifest(work)
    limit = time.time() + 60
    while True:  # its worker processes notice within a block that their parent is gone
        done = run_script(larger, out, *words[2:6])
        if done.returncode == 0 or time.time() > limit:
            break
        assert b"being written by another process" in done.stderr
    assert done.returncode == 0, done.stderr
    assert shard_bytes(out) == shard_bytes(expected) and not os.path.exists(work)


def test_ctrl_c_ends_it_quietly_and_running_again_completes_it(larger, tmp_path):
    words = ["--bin_path", larger, "--shards", "8", "--workers", "2", "--tfrecords_file_path"]
    out, work = str(tmp_path / "out"), str(tmp_path / "out.incomplete")
    done = ended(signal.SIGINT, "bucket-", work, words + [out])
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"interrupted.\n")
    assert not os.path.exists(out)
    assert run_script(larger, out, *words[2:6]).returncode == 0
    assert read_manifest(out).images == 6000


def test_two_conversions_to_one_place_do_not_mix(rec, tmp_path):
    with mx2tfrecords.work_directory(str(tmp_path / "out"), 0):
        with pytest.raises(ValueError, match="being written by another process"):
            convert(rec, tmp_path / "out")
        assert os.path.isdir(str(tmp_path / "out.incomplete"))


def test_a_worker_that_is_killed_ends_the_conversion(rec, tmp_path, monkeypatch):
    parent = os.getpid()

    def scatter(*_):
        assert os.getpid() != parent
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(shuffle, "scatter", scatter)
    monkeypatch.setattr(shuffle, "BLOCK_BYTES", 1 << 12)
    text = refusal(rec, tmp_path / "out", "--workers", "2")
    assert "a worker process ended with exit code -9" in text


def test_dataset_json_is_readable_by_people(rec, tmp_path):
    convert(rec, tmp_path / "out", "--shards", "2")
    content = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert content["images"] == 40 and content["shards"][0]["images"] == 20


def test_an_image_in_place_of_the_rec_is_named(tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEGS[0])
    with pytest.raises(ValueError, match="a.jpg is an image; pass the .rec"):
        mx2tfrecords.main(
            ["--bin_path", str(tmp_path / "a.jpg"), "--tfrecords_file_path", str(tmp_path / "out")]
        )
