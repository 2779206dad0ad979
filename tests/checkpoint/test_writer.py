import json
import os
import subprocess
import sys

import numpy as np
import pytest

from checkpoint import writer as checkpoint_writer
from checkpoint.format import clear_unfinished, newest_whole, steps_in
from checkpoint.writer import CheckpointWriter, save_arrays
from runtime.distributed.ranks import Ranks
from runtime.tf1 import tf
from runtime.variables import weight
from training.graph.gradients import FIRST_SCALE, LossScale

RUN = {"net": {}, "training": {}, "dataset": {}}


@pytest.fixture
def written(tmp_path):
    """(directory, write): write(step) makes a whole checkpoint in which v == step."""
    with tf.Graph().as_default(), tf.Session() as session:
        value = tf.get_variable("v", [], tf.float32)
        writer = CheckpointWriter(str(tmp_path), RUN, keep=3)

        def write(step, best=False):
            session.run(value.assign(float(step)))
            return (writer.save_best if best else writer.save)(session, step, images_seen=step * 8)

        yield str(tmp_path), write


def test_a_checkpoint_holds_its_values_and_its_record(written):
    directory, write = written
    write(5)
    prefix, record = newest_whole(directory)
    assert os.path.basename(prefix) == "InsightFace_iter_5.ckpt"
    assert (record["step"], record["images_seen"]) == (5, 40)
    assert tf.train.load_checkpoint(prefix).get_tensor("v") == np.float32(5)


def test_the_oldest_go_and_the_best_stay(written):
    directory, write = written
    write(1, best=True)
    for step in (1, 2, 3, 4, 10):
        write(step)
    assert steps_in(directory) == [3, 4, 10]
    assert os.path.exists(os.path.join(directory, "InsightFace_iter_best_1.ckpt.index"))
    write(10, best=True)
    best = [name for name in os.listdir(directory) if "best" in name]
    assert sorted(best)[0].startswith("InsightFace_iter_best_10.ckpt") and len(best) == 3


def test_a_loss_scale_that_the_checkpoint_lacks_starts_anew(written, caplog):
    directory, write = written
    write(5)
    caplog.set_level("INFO")
    with tf.Graph().as_default(), tf.Session() as session:
        value, scale = tf.get_variable("v", []), LossScale()
        writer = CheckpointWriter(directory, RUN, keep=3)
        session.run(tf.global_variables_initializer())
        writer.restore(session, newest_whole(directory)[0])
        assert session.run([value, scale.value, scale.good]) == [5.0, FIRST_SCALE, 0]
    assert "has no loss scale, as it was trained without" in caplog.text


def test_a_loss_scale_is_restored_where_the_checkpoint_has_one(tmp_path, caplog):
    caplog.set_level("INFO")
    with tf.Graph().as_default(), tf.Session() as session:
        scale, writer = LossScale(), CheckpointWriter(str(tmp_path), RUN, keep=3)
        session.run(tf.global_variables_initializer())
        session.run([scale.value.assign(64.0), scale.good.assign(7), scale.skipped.assign(3)])
        prefix = writer.save(session, 1)
        session.run(tf.global_variables_initializer())
        writer.restore(session, prefix)
        assert session.run([scale.value, scale.good, scale.skipped]) == [64.0, 7, 3]
    assert "no loss scale" not in caplog.text


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def change_a_byte(path):
    with open(path, "r+b") as stream:
        stream.seek(os.path.getsize(path) // 2)
        old = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([old[0] ^ 255]))


@pytest.mark.parametrize("damage", [cut, change_a_byte, os.remove])
@pytest.mark.parametrize("part", [".data-00000-of-00001", ".index", ".json"])
def test_an_incomplete_checkpoint_is_skipped(written, damage, part):
    directory, write = written
    write(1)
    damage(write(2) + part)
    prefix, record = newest_whole(directory)
    assert record["step"] == 1 and prefix.endswith("_1.ckpt")


def test_an_incomplete_checkpoint_is_logged_with_the_reason(written, caplog):
    directory, write = written
    write(1)
    cut(write(2) + ".index")
    newest_whole(directory)
    assert "InsightFace_iter_2.ckpt is not usable" in caplog.text and ".index" in caplog.text


def test_nothing_is_found_where_nothing_was_written(tmp_path):
    assert newest_whole(str(tmp_path)) == (None, None)
    assert newest_whole(str(tmp_path / "nowhere")) == (None, None)


def test_a_killed_writers_files_are_removed(written):
    directory, write = written
    write(1)
    os.makedirs(os.path.join(directory, ".writing-abc"))
    clear_unfinished(directory)
    assert not [name for name in os.listdir(directory) if name.startswith(".writing")]
    assert newest_whole(directory)[1]["step"] == 1


def test_other_programs_find_the_newest_by_the_usual_file(written):
    directory, write = written
    write(3)
    write(7)
    assert tf.train.latest_checkpoint(directory) == os.path.join(
        directory, "InsightFace_iter_7.ckpt"
    )


def test_the_record_is_json_that_names_each_file(written):
    directory, write = written
    with open(write(1) + ".json") as stream:
        files = json.load(stream)["files"]
    assert set(files) == {
        "InsightFace_iter_1.ckpt.index",
        "InsightFace_iter_1.ckpt.data-00000-of-00001",
    }
    for name, facts in files.items():
        assert os.path.getsize(os.path.join(directory, name)) == facts["bytes"]


def test_a_large_variable_is_written_in_blocks_of_one_tensor(tmp_path, monkeypatch):
    """Whole, and as a slice of a larger one, of which this process has two."""
    monkeypatch.setattr(checkpoint_writer, "SAVE_BLOCK", 30_000)
    values = np.random.RandomState(0).randn(1001, 16).astype(np.float32)
    with tf.Graph().as_default(), tf.Session() as session:
        whole = weight("whole", [1001, 16], tf.constant_initializer(values))
        half = weight("half", [1001, 16], tf.constant_initializer(-values), slice_of=(1001, 2002))
        small = weight("small", [7], tf.zeros_initializer())
        writer = CheckpointWriter(str(tmp_path), RUN, keep=3)
        session.run(tf.global_variables_initializer())
        prefix = writer.save(session, 1)
        reader = tf.train.load_checkpoint(prefix)
        np.testing.assert_array_equal(reader.get_tensor("whole"), values)
        assert reader.get_variable_to_shape_map()["half"] == [2002, 16]
        data = [name for name in os.listdir(str(tmp_path)) if ".data-" in name]
        assert len(data) == 1 + 3 + 5  # of the small one; 64,064 and, of both slices, 128,128 bytes
        session.run([variable.assign(variable * 0.0 + 9.0) for variable in (whole, half, small)])
        writer.restore(session, prefix)
        np.testing.assert_array_equal(session.run(whole), values)
        np.testing.assert_array_equal(session.run(half), -values)
        np.testing.assert_array_equal(session.run(small), np.zeros(7))


def test_hosts_with_uneven_slices_write_one_tensor(tmp_path, monkeypatch):
    """The first host merges as many blocks of the second as the second wrote."""
    monkeypatch.setattr(checkpoint_writer, "SAVE_BLOCK", 16 * 64)  # 16 rows
    values = np.random.RandomState(0).randn(65, 16).astype(np.float32)
    prefix = str(tmp_path / "both")
    for host, (first, last) in ((1, (33, 65)), (0, (0, 33))):
        ranks = Ranks(hosts=("a:1", "b:1"), host=host)
        with tf.Graph().as_default(), tf.Session() as session:
            start = tf.constant_initializer(values[first:last])
            centres = weight("centres", [last - first, 16], start, slice_of=(first, 65))
            kept = [centres] if host else [centres, weight("bias", [3], tf.ones_initializer())]
            session.run(tf.global_variables_initializer())
            session.run(checkpoint_writer.save_op(prefix, f".part-{host}", kept, ranks.size))
            if ranks.leads:
                session.run(checkpoint_writer.merge_op(prefix, kept, ranks))
    reader = tf.train.load_checkpoint(prefix)
    np.testing.assert_array_equal(reader.get_tensor("centres"), values)
    np.testing.assert_array_equal(reader.get_tensor("bias"), np.ones(3))


NO_ROOM = OSError(28, "No space left on device")


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """(session, writer, fail): after fail(n), n attempts to publish raise NO_ROOM."""
    monkeypatch.setattr(checkpoint_writer, "PAUSE_SECONDS", 0.0)
    left, real = [0], checkpoint_writer._publish

    def publish(*arguments):
        left[0] -= 1
        if left[0] >= 0:
            raise NO_ROOM
        real(*arguments)

    monkeypatch.setattr(checkpoint_writer, "_publish", publish)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("v", [500], tf.float32)
        session.run(tf.global_variables_initializer())
        writer = CheckpointWriter(str(tmp_path), RUN, keep=2)
        yield session, writer, lambda count: left.__setitem__(0, count)


def test_a_save_is_tried_again(failing):
    session, writer, fail = failing
    fail(1)
    assert writer.save(session, 1)
    assert (writer.saved_step, writer.failure) == (1, "")


def test_a_failed_save_is_known_until_one_succeeds(failing):
    session, writer, fail = failing
    writer.save(session, 1)
    fail(checkpoint_writer.ATTEMPTS)
    assert writer.save(session, 2) is None
    assert writer.saved_step == 1 and "No space left on device" in writer.failure
    writer.save_best(session, 2)
    assert writer.failure  # the best checkpoint is not what a run resumes from
    assert writer.save(session, 3) and not writer.failure


def test_a_full_disk_is_logged_with_the_bytes_that_are_needed(failing, caplog):
    session, writer, fail = failing
    fail(checkpoint_writer.ATTEMPTS)
    writer.save(session, 1)
    assert "No space left on device (0.0 MB needed, " in caplog.text and " MB free" in caplog.text
    assert writer.bytes == 500 * 4


def test_a_full_disk_costs_the_oldest_checkpoint_that_this_one_replaces(failing):
    session, writer, fail = failing
    for step in (1, 2):
        writer.save(session, step)
    fail(checkpoint_writer.ATTEMPTS)
    writer.save(session, 3)
    assert steps_in(writer.directory) == [2]


def test_the_cause_of_tensorflows_error_is_logged_not_its_heading(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "PAUSE_SECONDS", 0.0)
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("v", [], tf.float32)
        session.run(tf.global_variables_initializer())
        writer = CheckpointWriter(str(tmp_path / "ckpt"), RUN, keep=2)
        (tmp_path / "ckpt").write_text("a file where the directory belongs")
        assert writer.save(session, 1) is None
    assert "Not a directory" in writer.failure and "Graph execution" not in caplog.text


LIMITED = """
import resource, signal, sys
from checkpoint import writer as checkpoint_writer
from runtime.tf1 import tf

checkpoint_writer.PAUSE_SECONDS = 0.0
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
tf.get_variable("v", [65536], tf.float32)
writer = checkpoint_writer.CheckpointWriter(sys.argv[1], {"net": {}}, keep=3)
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    print(writer.save(session, 1), writer.saved_step)
print(writer.failure)
"""


def test_a_checkpoint_that_the_system_cuts_is_removed_and_the_cause_reported(tmp_path):
    """A limit on a file's size stands for a full disk: the same error comes out of the same write,
    inside TensorFlow."""
    words = [sys.executable, "-c", LIMITED, str(tmp_path)]
    lines = subprocess.check_output(words).decode().splitlines()
    assert lines[0] == "None None" and lines[1] == "File too large"
    assert not os.listdir(str(tmp_path))


@pytest.mark.parametrize("name", ["out[1]", "out*", "out?"])
def test_a_directory_that_tensorflow_reads_as_a_pattern_is_refused(tmp_path, name):
    with tf.Graph().as_default():
        tf.get_variable("v", [], tf.float32)
        with pytest.raises(ValueError, match="pass another --output_path"):
            CheckpointWriter(str(tmp_path / name), RUN, keep=1)
    with pytest.raises(ValueError, match="Rename the directory"):
        save_arrays(str(tmp_path / name / "a.ckpt"), {"v": np.zeros(1, np.float32)}, RUN)


def test_another_hosts_failure_fails_the_checkpoint_here(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "PAUSE_SECONDS", 0.0)

    class Disagreement:
        def all_agree(self, session, yes):
            return False

    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("v", [], tf.float32)
        session.run(tf.global_variables_initializer())
        writer = CheckpointWriter(str(tmp_path), RUN, keep=1, agreement=Disagreement())
        assert writer.save(session, 1) is None
    assert "another host" in writer.failure and not os.listdir(str(tmp_path))


def test_arrays_are_written_as_a_checkpoint_with_checksums(tmp_path):
    prefix = str(tmp_path / "InsightFace_iter_0.ckpt")
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_arrays(prefix, {"a/W": value}, dict(RUN, step=0))
    np.testing.assert_array_equal(tf.train.load_checkpoint(prefix).get_tensor("a/W"), value)
    assert newest_whole(str(tmp_path))[0] == prefix
    assert len(os.listdir(str(tmp_path))) == 3


SAVE = """
import sys
from runtime.tf1 import tf
from runtime.variables import weight
from training.graph.gradients import FIRST_SCALE, LossScale
from checkpoint import writer as checkpoint_writer

checkpoint_writer.SAVE_BLOCK = int(sys.argv[1])
centres = weight("centres", [1 << 18, 512], tf.zeros_initializer())  # 512 MiB
touched = tf.raw_ops.ResourceScatterUpdate(
    resource=centres.handle, indices=[3], updates=tf.ones([1, 512])
)
writer = checkpoint_writer.CheckpointWriter(sys.argv[2], {"net": {}}, keep=3)
with tf.Session() as session:
    session.run(centres.initializer)
    session.run(touched)
    with open("/proc/self/status") as status:
        held = [line for line in status if line.startswith("VmRSS")]
    with open("/proc/self/clear_refs", "w") as forget:
        forget.write("5")  # the highest so far
    assert writer.save(session, 1)
    with open("/proc/self/status") as status:
        held += [line for line in status if line.startswith("VmHWM")]
print(*[int(line.split()[1]) // 1024 for line in held])
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="no /proc")
def test_writing_a_large_variable_does_not_hold_it_twice(tmp_path):
    words = [sys.executable, "-c", SAVE, str(64 << 20), str(tmp_path)]
    before, most = map(int, subprocess.check_output(words).split()[-2:])
    assert most - before < 200, (before, most)  # of 512 MiB
