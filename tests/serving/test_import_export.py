"""Banks of other programs, there and back, with and without PyTorch."""

import os
import sys
import zipfile

import numpy as np
import pytest

from serving.face_bank import FaceBank, ModelContract, NewSample
from serving.import_export import (
    NamedEmbeddings,
    import_bank,
    means_of,
    read_bank,
    samples_of,
    write_keras_bank,
    write_port_bank,
)
from serving.unit_vectors import unit

ROWS = np.random.RandomState(0).randn(3, 8).astype(np.float32)
BANK = NamedEmbeddings(["Anna", "李明", "Ben"], ROWS)


@pytest.fixture
def without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def same(found):
    assert found.names == BANK.names
    np.testing.assert_array_equal(found.embeddings_ND, ROWS)


def test_npz_of_keras_insightface_is_read_and_written(tmp_path):
    path = str(tmp_path / "people_register.npz")
    write_keras_bank(path, BANK)
    same(read_bank(path))
    with np.load(path) as archive:
        assert sorted(archive.files) == ["embeddings", "image_classes"]


def test_port_bank_is_read_and_written(tmp_path):
    torch = pytest.importorskip("torch")
    path = write_port_bank(str(tmp_path), BANK)
    assert os.path.basename(path) == "facebank.pth"
    assert torch.load(path, weights_only=True).shape == (3, 8)
    assert np.load(str(tmp_path / "names.npy")).tolist() == ["Unknown"] + BANK.names
    same(read_bank(str(tmp_path)))


def test_port_bank_is_read_without_torch(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    write_port_bank(str(tmp_path), BANK)
    monkeypatch.setitem(sys.modules, "torch", None)
    same(read_bank(str(tmp_path)))


def test_bank_is_written_as_npy_without_torch(tmp_path, without_torch):
    assert write_port_bank(str(tmp_path), BANK).endswith("facebank.npy")
    same(read_bank(str(tmp_path)))


def test_zip_of_the_ports_numbers_is_read_without_torch(tmp_path, without_torch):
    np.save(str(tmp_path / "names.npy"), np.array(["Unknown"] + BANK.names))
    with zipfile.ZipFile(str(tmp_path / "facebank.pth"), "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/data/0", ROWS.tobytes())
    same(read_bank(str(tmp_path)))


def test_rows_become_samples_of_a_bank_once(tmp_path):
    write_keras_bank(str(tmp_path / "a.npz"), BANK)
    bank = FaceBank.create(str(tmp_path / "b.db"), ModelContract("a" * 64, 8, "RGB", True))
    assert import_bank(bank, str(tmp_path / "a.npz")) == 3
    assert import_bank(bank, str(tmp_path / "a.npz")) == 0
    found = samples_of(bank)
    order = [found.names.index(name) for name in BANK.names]
    np.testing.assert_array_equal(found.embeddings_ND[order], unit(ROWS))


def test_means_are_not_scaled_to_length_one():
    rows = np.array([[1, 0], [0, 1], [0, 1]], np.float32)
    means = means_of(NamedEmbeddings(["a", "a", "b"], rows))
    assert means.names == ["a", "b"] and means.embeddings_ND.tolist() == [[0.5, 0.5], [0, 1]]


def damaged(tmp_path, kind):
    path = tmp_path / "bank.npz"
    if kind == "text":
        path.write_bytes(b"text")
    elif kind == "other arrays":
        np.savez(str(path), x=ROWS)
    elif kind == "objects":
        np.savez(str(path), embeddings=ROWS, image_classes=np.array([{}, 1, 2], object))
    elif kind == "one name too few":
        np.savez(str(path), embeddings=ROWS, image_classes=np.array(["a", "b"]))
    else:
        np.savez(str(path), embeddings=ROWS * np.nan, image_classes=np.array(["a", "b", "c"]))
    return str(path)


@pytest.mark.parametrize("kind", ["text", "other arrays", "objects", "one name too few", "nan"])
def test_damaged_npz_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=r"bank\.npz"):
        read_bank(damaged(tmp_path, kind))


def test_directory_without_a_bank_is_refused(tmp_path):
    with pytest.raises(ValueError, match="facebank.pth is not there"):
        read_bank(str(tmp_path))


def test_pth_that_runs_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    np.save(str(tmp_path / "names.npy"), np.array(["Unknown", "a"]))
    torch.save({"a": os.system}, str(tmp_path / "facebank.pth"))
    with pytest.raises(ValueError, match="not a whole PyTorch file"):
        read_bank(str(tmp_path))


def test_bank_of_another_width_is_refused(tmp_path):
    write_keras_bank(str(tmp_path / "a.npz"), BANK)
    bank = FaceBank.create(str(tmp_path / "b.db"), ModelContract("a" * 64, 9, "RGB", True))
    with pytest.raises(ValueError, match="the bank's have 9"):
        import_bank(bank, str(tmp_path / "a.npz"))


def test_samples_of_one_person_stay_together(tmp_path):
    bank = FaceBank.create(str(tmp_path / "b.db"), ModelContract("a" * 64, 8, "RGB", True))
    bank.add(
        [NewSample("x", ROWS[0], "1"), NewSample("y", ROWS[1], "2"), NewSample("x", ROWS[2], "3")]
    )
    assert sorted(samples_of(bank).names) == ["x", "x", "y"]
