"""A target is whole or not there."""

import errno
import os

import pytest

from export.staging import check_target, staged


def write(path, content="new"):
    with open(path, "w") as stream:
        stream.write(content)


def test_staged_file_is_moved_when_the_block_ends(tmp_path):
    with staged(str(tmp_path / "m.onnx")) as path:
        write(path)
        assert not (tmp_path / "m.onnx").exists()
    assert (tmp_path / "m.onnx").read_text() == "new"
    assert os.listdir(str(tmp_path)) == ["m.onnx"]


def test_nothing_is_left_when_the_disk_fills(tmp_path):
    write(str(tmp_path / "m.onnx"), "old")
    with pytest.raises(OSError) as error, staged(str(tmp_path / "m.onnx")) as path:
        write(path)
        raise OSError(errno.ENOSPC, "No space left on device")
    assert error.value.filename == str(tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_text() == "old"
    assert os.listdir(str(tmp_path)) == ["m.onnx"]


def test_staged_directory_replaces_a_directory(tmp_path):
    (tmp_path / "saved").mkdir()
    write(str(tmp_path / "saved" / "old"))
    with staged(str(tmp_path / "saved")) as path:
        os.makedirs(path)
        write(os.path.join(path, "new"))
    assert os.listdir(str(tmp_path / "saved")) == ["new"]


def test_existing_target_is_refused_without_overwrite(tmp_path):
    write(str(tmp_path / "m.onnx"))
    check_target(str(tmp_path / "m.onnx"), overwrite=True)
    with pytest.raises(ValueError, match="exists; pass --overwrite"):
        check_target(str(tmp_path / "m.onnx"), overwrite=False)


def test_directory_that_cannot_be_made_is_refused(tmp_path):
    write(str(tmp_path / "file"))
    with pytest.raises(ValueError, match="cannot be made"):
        check_target(str(tmp_path / "file" / "m.onnx"), overwrite=False)
