import numpy as np
import pytest

from evaluation.saved_pairs import SavedPairs, load, save


@pytest.fixture
def pairs():
    hardest = {4: (b"\x00first", b"second"), 1: (b"a", b"")}
    row, distances_P = {"set": "lfw", "eer": 0.1}, np.array([0.25, 1.5, 3.0])
    return SavedPairs(row, distances_P, np.array([True, False, False]), hardest)


def test_saved_pairs_come_back(tmp_path, pairs):
    save(str(tmp_path / "lfw.npz"), pairs)
    found = load(str(tmp_path / "lfw.npz"))
    assert found.row == pairs.row and found.hardest == pairs.hardest
    assert np.array_equal(found.distances_P, pairs.distances_P)
    assert np.array_equal(found.issame_P, pairs.issame_P)


def test_a_damaged_or_missing_file_is_none(tmp_path, pairs):
    path = tmp_path / "lfw.npz"
    save(str(path), pairs)
    path.write_bytes(path.read_bytes()[:-200])
    assert load(str(path)) is None
    assert load(str(tmp_path / "missing.npz")) is None


def test_saving_leaves_no_other_file(tmp_path, pairs):
    save(str(tmp_path / "lfw.npz"), pairs)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lfw.npz"]
