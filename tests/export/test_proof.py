"""What the comparison of a file with its checkpoint measures and refuses."""

import cv2
import numpy as np
import pytest

from export.proof import (
    BATCH,
    Proof,
    Reference,
    batch_sizes,
    check,
    differences,
    drawn_faces,
    read_images,
    run_batches,
)
from nets.lineages import NetSpec

SPEC = NetSpec("arcface_torch", 18, "ir", 0.125, 24, (32, 48))


def test_differences_are_relative_to_each_embeddings_largest_number():
    expected_ND = np.array([[1.0, 2.0], [0.0, 100.0]])
    found_ND = expected_ND + [[0.02, 0.0], [0.0, 0.1]]
    assert np.isclose(differences(found_ND, expected_ND)[0], 0.01)


def test_lowest_cosine_is_that_of_the_worst_image():
    assert np.isclose(differences(np.eye(2), np.array([[1.0, 0.0], [1.0, 0.0]]))[1], 0.0)


@pytest.mark.parametrize("worst", [2e-4, float("nan")])
def test_a_file_that_differs_is_refused(worst):
    with pytest.raises(ValueError, match="m.onnx was not written"):
        check([Proof("runtime", 4, [1], worst, 0.5)], "m.onnx")


def test_batches_are_1_2_and_16():
    assert batch_sizes(24, None) == [1, 2, 16, 5]
    assert batch_sizes(1, None) == [1]


@pytest.mark.parametrize("images", [1, 20, 64])
def test_runtimes_share_the_images_and_each_runs_every_batch_size(images):
    reference = Reference(np.arange(images), np.arange(images))
    shares = [reference.share(number, 2) for number in range(2)]
    assert {i for share in shares for i in share.images_NHWC} == set(range(images))
    assert all(len(share.images_NHWC) >= min(images, 3 + BATCH) for share in shares)
    assert all(np.array_equal(share.images_NHWC, share.expected_ND) for share in shares)


def test_a_fixed_batch_is_filled_with_its_last_image():
    seen = []
    found = run_batches(lambda part: seen.append(part) or part, np.arange(5)[:, None], [4, 4])
    assert found.ravel().tolist() == [0, 1, 2, 3, 4]
    assert seen[1].ravel().tolist() == [4, 4, 4, 4]


def test_drawn_faces_are_all_different():
    faces_NHWC = drawn_faces(SPEC, 20)
    assert faces_NHWC.shape == (20, 32, 48, 3)
    assert len({face.tobytes() for face in faces_NHWC}) == 20


def test_images_of_a_directory_are_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 48, 3), (0, 0, 255), np.uint8))
    assert read_images(str(tmp_path), SPEC, 4, "--proof")[0, 0, 0].tolist() == [255, 0, 0]


def test_images_of_another_size_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="images are 48 x 32, but the network takes 32 x 48"):
        read_images(str(tmp_path), SPEC, 4, "--calibration")


def test_a_directory_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        read_images(str(tmp_path), SPEC, 4, "--proof")
