"""The readers of the lists on a release of the same layout with 41 images."""

import numpy as np
import pytest

from evaluation import ijb_metadata
from tests.evaluation import tiny_ijb


@pytest.fixture
def release(tmp_path):
    return tiny_ijb.write(tmp_path / "IJBC")


def write_list(release, ending, text):
    with open(f"{release}/meta/ijbc_{ending}", "w") as stream:
        stream.write(text)


def test_images_are_those_of_both_lists_in_their_order(release):
    images, lists = ijb_metadata.read_images(release, "IJBC"), tiny_ijb.lists()
    assert images.names == [f"{i + 1}.jpg" for i in range(tiny_ijb.IMAGES)]
    np.testing.assert_array_equal(images.template_N, lists["template_N"])
    np.testing.assert_array_equal(images.scores_N, lists["scores_N"].astype(np.float32))
    assert images.landmarks_N52.shape == (tiny_ijb.IMAGES, 5, 2)


def test_the_weights_of_a_medium_in_a_template_sum_to_one():
    weight_N = ijb_metadata.media_weights(np.array([0, 0, 0, 1, 1]), np.array([7, 7, 9, 7, 8]))
    np.testing.assert_array_equal(weight_N, np.array([0.5, 0.5, 1, 1, 1], np.float32))


@pytest.mark.parametrize("data_path", ["", "IJBC"])
def test_the_lists_are_found_in_the_release_and_in_its_parent(release, data_path):
    path = release if data_path else release[: -len("/IJBC")]
    assert ijb_metadata.meta_path(path, "IJBC", ijb_metadata.FACES).startswith(f"{release}/meta/")
    assert ijb_metadata.image_directory(path, "IJBC") == f"{release}/loose_crop"


def test_pairs_become_indices_of_templates(release):
    images = ijb_metadata.read_images(release, "IJBC")
    found = ijb_metadata.read_pair_list(release, "IJBC", images)
    assert list(zip(*found)) == [tuple(pair) for pair in tiny_ijb.lists()["pairs"]]


def test_galleries_have_each_template_once_with_its_subject(release):
    images = ijb_metadata.read_images(release, "IJBC")
    galleries = ijb_metadata.read_galleries(release, "IJBC", images)
    subject_M = tiny_ijb.lists()["subject_M"]
    for (template_G, subject_G), expected in zip(galleries, ([0, 1, 2], [3, 4, 5], range(6, 12))):
        assert list(template_G) == list(expected)
        np.testing.assert_array_equal(subject_G, 100 + subject_M[template_G])


@pytest.mark.parametrize(
    "rows, words",
    [
        ("5,1\n8,2\n5,3\n", "line 4 assigns template 5 to subject 3, but an earlier line .* 1"),
        ("5,one\n", "line 2 holds text where numbers must be"),
        ("", "has no templates"),
    ],
)
def test_a_damaged_gallery_is_refused(release, rows, words):
    images = ijb_metadata.read_images(release, "IJBC")
    write_list(release, "1N_gallery_G2.csv", "TEMPLATE_ID,SUBJECT_ID\n" + rows)
    with pytest.raises(ValueError, match=f"1N_gallery_G2.csv: {words}" if rows else words):
        ijb_metadata.read_galleries(release, "IJBC", images)


@pytest.mark.parametrize(
    "text, words",
    [("1.jpg 5\n", "line 1 has 2 fields, not a name, a template"), ("\n", "is empty")],
)
def test_a_damaged_list_of_faces_is_refused(release, text, words):
    write_list(release, ijb_metadata.FACES, text)
    with pytest.raises(ValueError, match=words):
        ijb_metadata.read_images(release, "IJBC")


def test_lists_that_disagree_are_refused_by_line(release):
    path = f"{release}/meta/ijbc_face_tid_mid.txt"
    lines = open(path).read().splitlines()
    lines[4], lines[5] = lines[5], lines[4]
    open(path, "w").write("\n".join(lines))
    with pytest.raises(ValueError, match="line 5 is 5.jpg in .* and 6.jpg in"):
        ijb_metadata.read_images(release, "IJBC")


def test_lists_of_other_lengths_are_refused(release):
    path = f"{release}/meta/ijbc_face_tid_mid.txt"
    lines = open(path).read().splitlines()
    open(path, "w").write("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="lists 41 images, .* 40"):
        ijb_metadata.read_images(release, "IJBC")


@pytest.mark.parametrize(
    "text, words",
    [
        ("5 8 1\n8 9999 0\n", "template 9999 has no image"),
        ("5 8 1\n8 x 0\n", "text where whole numbers must be"),
        ("5 8 1\n8 11\n", "three numbers per line"),
        ("5 8 1\n8 11 1\n", "both kinds are needed"),
    ],
)
def test_a_damaged_pair_list_is_refused(release, text, words):
    open(f"{release}/meta/ijbc_template_pair_label.txt", "w").write(text)
    images = ijb_metadata.read_images(release, "IJBC")
    with pytest.raises(ValueError, match=words):
        ijb_metadata.read_pair_list(release, "IJBC", images)


def test_the_pair_list_is_read_whole_when_cut_into_blocks(release, monkeypatch):
    images = ijb_metadata.read_images(release, "IJBC")
    whole = ijb_metadata.read_pair_list(release, "IJBC", images)
    monkeypatch.setattr(ijb_metadata, "CHUNK", 19)
    for one, other in zip(whole, ijb_metadata.read_pair_list(release, "IJBC", images)):
        assert np.array_equal(one, other)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(ValueError, match="ijbc_name_5pts_score.txt does not exist"):
        ijb_metadata.read_images(str(tmp_path), "IJBC")
