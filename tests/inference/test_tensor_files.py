import os

import numpy as np
import pytest

from data.eval_data_reader import write_pairs
from inference import tensor_files
from inference.embedder import Embedder
from inference.preprocessing import Preprocessing
from tests.inference.backends.test_ais_bench import DOUBLE
from tests.inference.test_sources import PNG
from tests.inference.tiny_models import (
    HEIGHT,
    IMAGES,
    WEIGHTS,
    WIDTH,
    expected,
    write_manifest,
)

SIZE = (HEIGHT, WIDTH)
ISSAME = np.array([True, False, True])


@pytest.fixture
def lfw(tmp_path):
    write_pairs(str(tmp_path / "lfw.bin"), PNG[:6], ISSAME)
    return str(tmp_path / "lfw.bin")


def guides(image_HWC):
    """What torchvision makes of an image that OpenCV decoded: BGR, ToTensor, Normalize(.5, .5)."""
    bgr_CHW = image_HWC[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
    return (bgr_CHW / np.float32(255) - np.float32(0.5)) / np.float32(0.5)


def write(lfw, tmp_path, **options):
    form = tensor_files.GUIDE._replace(size=SIZE, **options)
    tensor_files.write_tensors(lfw, str(tmp_path / "out"), form)
    return tmp_path / "out"


def test_tensors_are_the_guides_byte_for_byte(lfw, tmp_path):
    found = write(lfw, tmp_path)
    for number, image in enumerate(IMAGES[:6]):
        assert (found / f"{number}.bin").read_bytes() == guides(image).tobytes()


def test_the_mirrored_tensor_is_the_mirrored_images(lfw, tmp_path):
    found = write(lfw, tmp_path)
    mirrored = guides(IMAGES[2][:, ::-1])
    assert (found / "2_flip.bin").read_bytes() == mirrored.tobytes()


def test_a_set_has_two_files_an_image(lfw, tmp_path):
    names = sorted(os.listdir(str(write(lfw, tmp_path))))
    assert names == sorted(f"{i}{flip}.bin" for i in range(6) for flip in ("", "_flip"))


def test_npy_holds_the_same_values(lfw, tmp_path):
    found = np.load(str(write(lfw, tmp_path, file_format="npy") / "1.npy"))
    np.testing.assert_array_equal(found, guides(IMAGES[1]))


def test_another_model_has_its_own_order_and_scale(lfw, tmp_path):
    tables = tensor_files.tables_of(Preprocessing("RGB", (1.0, 2.0, 3.0), 64.0, ""))
    found = write(lfw, tmp_path, tables_CT=tables, channel_order="RGB") / "1.bin"
    wanted = (IMAGES[1].astype(np.float32) - np.float32([1, 2, 3])) / np.float32(64)
    assert found.read_bytes() == wanted.transpose(2, 0, 1).tobytes()


def test_the_pair_list_comes_back(tmp_path):
    tensor_files.write_pair_list(str(tmp_path / "list.npy"), ISSAME)
    assert tensor_files.read_pair_list(str(tmp_path / "list.npy")).tolist() == ISSAME.tolist()


@pytest.mark.parametrize("array", [np.ones((2, 2), bool), np.array([0, 2])])
def test_a_list_of_other_values_is_refused(tmp_path, array):
    np.save(str(tmp_path / "list.npy"), array)
    with pytest.raises(ValueError, match=r"a pair list is bool \[P\]"):
        tensor_files.read_pair_list(str(tmp_path / "list.npy"))


def test_tensors_are_listed_in_natural_order(tmp_path):
    for name in ("10.bin", "2.bin", "2_flip.bin", "0.npy", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    names = tensor_files.open_tensors(str(tmp_path)).names
    assert names == ["0.npy", "2.bin", "2_flip.bin", "10.bin"]


def test_a_tensor_of_another_model_is_refused(tmp_path):
    (tmp_path / "0.bin").write_bytes(b"1234")
    tensors = tensor_files.open_tensors(str(tmp_path))
    with pytest.raises(ValueError, match=r"0.bin holds 4 bytes.*float32 \[3, 12, 16\]: 2304"):
        tensors.read(["0.bin"], (3, 12, 16), "float32")


def test_a_directory_without_tensors_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no .bin or .npy tensors"):
        tensor_files.open_tensors(str(tmp_path))


def test_a_text_result_is_ais_benchs(tmp_path):
    tensor_files.write_result(str(tmp_path), "7_flip.bin", np.float32([0.5, -1.25]), "txt")
    assert (tmp_path / "7_flip_0.txt").read_text() == "0.500000 -1.250000 \n"


@pytest.mark.parametrize("file_format", ["txt", "bin", "npy"])
def test_results_come_back(tmp_path, file_format):
    rows = np.round(np.random.RandomState(0).randn(4, 2, 3), 6).astype(np.float32)
    for number, pair in enumerate(rows):
        for row, flip in zip(pair, ("", "_flip")):
            tensor_files.write_result(str(tmp_path), f"{number}{flip}.bin", row, file_format)
    plain, mirrored = tensor_files.read_results(str(tmp_path), 4)
    np.testing.assert_array_equal(plain, rows[:, 0])
    np.testing.assert_array_equal(mirrored, rows[:, 1])


@pytest.fixture
def results(tmp_path):
    directory = tmp_path / "result" / "2026_01_01-00_00_00"
    directory.mkdir(parents=True)
    for number in range(4):
        for flip in ("", "_flip"):
            tensor_files.write_result(str(directory), f"{number}{flip}.x", np.ones(3), "txt")
    return directory


def test_the_directory_of_the_run_is_found(results):
    assert tensor_files.results_directory(str(results.parent)) == str(results)


def test_two_runs_are_refused(results):
    other = results.parent / "2026_01_02-00_00_00"
    other.mkdir()
    tensor_files.write_result(str(other), "0.bin", np.ones(3), "txt")
    with pytest.raises(ValueError, match="results of 2 runs; pass one of them, such as .*01_02"):
        tensor_files.results_directory(str(results.parent))


def test_no_results_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no results"):
        tensor_files.results_directory(str(tmp_path))


def test_missing_results_are_counted_and_named(results):
    (results / "1_0.txt").unlink()
    (results / "3_flip_0.txt").unlink()
    with pytest.raises(ValueError, match=r"lacks 2 of 8 results \(1_0.txt, 3_flip_0.txt\)"):
        tensor_files.read_results(str(results), 4)


def test_results_of_a_larger_set_are_refused(results):
    with pytest.raises(ValueError, match="holds 8 results, but the list has 1 pairs"):
        tensor_files.read_results(str(results), 2)


def test_mixed_formats_are_refused(results):
    (results / "0_0.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="mixes npy and txt results"):
        tensor_files.read_results(str(results), 4)


def test_a_short_result_is_named(results):
    (results / "2_0.txt").write_text("1 2\n")
    with pytest.raises(ValueError, match="2_0.txt holds 2 values, but 0_0.txt holds 3"):
        tensor_files.read_results(str(results), 4)


def test_a_result_of_words_is_named(results):
    (results / "2_0.txt").write_text("a b c\n")
    with pytest.raises(ValueError, match="2_0.txt holds no list of numbers"):
        tensor_files.read_results(str(results), 4)


def test_a_model_runs_on_the_tensors(lfw, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(DOUBLE)
    model = tmp_path / "model.om"
    with open(str(model), "wb") as stream:
        np.savez(stream, weights=WEIGHTS, shape=np.array([4, 3, HEIGHT, WIDTH]))
    write_manifest(model)
    tensors = tensor_files.open_tensors(str(write(lfw, tmp_path)))
    results = tmp_path / "results"
    with Embedder(str(model)) as embedder:
        tensor_files.run_tensors(embedder, tensors, str(results), "npy", 4)
    plain, mirrored = tensor_files.read_results(str(results), 6)
    wanted = [expected(x, "BGR", 127.5, 127.5) for x in (IMAGES[:6], IMAGES[:6, :, ::-1])]
    np.testing.assert_allclose(plain, wanted[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(mirrored, wanted[1], rtol=1e-4, atol=1e-4)
