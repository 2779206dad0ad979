"""Lists of images: folders, both .lst dialects, landmarks and pairs.txt."""

import os

import numpy as np
import pytest

from data.formats.image_lists import folder_items, list_items, read_landmarks, read_pair_list


def tree(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")
    return str(root)


def test_folders_are_identities_in_sorted_order(tmp_path):
    root = tree(tmp_path, "b/2.png", "b/1.jpg", "a/x.JPG", "b/notes.txt", ".git/a.jpg", "b/.h.jpg")
    (tmp_path / "0-empty").mkdir()
    items, names = folder_items(root)
    assert names == ["a", "b"]
    assert [(item.path[len(root) + 1 :], item.label) for item in items] == [
        ("a/x.JPG", 0),
        ("b/1.jpg", 1),
        ("b/2.png", 1),
    ]


def test_folders_without_identities_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no images in folders"):
        folder_items(str(tmp_path))
    with pytest.raises(ValueError, match="no identity's folder"):
        folder_items(tree(tmp_path, "1.jpg", "a/2.jpg"))


def lst(tmp_path, text):
    path = tmp_path / "train.lst"
    path.write_text(text)
    return str(path)


def test_im2rec_lists_give_first_label_and_last_path(tmp_path):
    items = list_items(lst(tmp_path, "7\t3.000000\tdir/a b.jpg\n9\t4\t0.5\tc.png\n"), "root")
    assert [(item.path, item.label) for item in items] == [
        ("root/dir/a b.jpg", 3),
        ("root/c.png", 4),
    ]


def test_face2rec_lists_give_label_and_landmarks(tmp_path):
    box, xs, ys = "1\t2\t3\t4", "10\t20\t15\t11\t19", "30\t31\t40\t50\t51"
    text = f"1\ta.jpg\t5\n\n0\t/abs/b.jpg\t6\t{box}\t{xs}\t{ys}\n0\tc.jpg\t7\t{box}\n"
    first, second, third = list_items(lst(tmp_path, text), "root")
    assert (first.path, first.label, first.aligned, first.points_52) == (
        "root/a.jpg",
        5,
        True,
        None,
    )
    assert (second.path, second.label, second.aligned) == ("/abs/b.jpg", 6, False)
    assert second.points_52.tolist() == [[10, 30], [20, 31], [15, 40], [11, 50], [19, 51]]
    assert third.points_52 is None


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "lists no image"),
        ("1\t2\ta.jpg\nwhat is this\n", "line 2 has 1 fields"),
        ("1\t-2\ta.jpg\n", "line 1 has the label '-2'"),
        ("1\t1.5\ta.jpg\n", "label '1.5'"),
        ("1\tnan\ta.jpg\n", "label 'nan'"),
        ("0\ta.jpg\tbob\n", "label 'a.jpg'"),
        ("0\ta.jpg\t1\t1\t1\t1\t1" + "\tx" * 10, "label 'a.jpg'"),
        ("0\ta.jpg\t1\t1\t1\t1\t1" + "\tx" * 9 + "\t1", "landmark that is not a number"),
    ],
)
def test_other_lines_are_refused_with_their_number(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        list_items(lst(tmp_path, text), "root")


def test_landmarks_come_with_or_without_a_heading(tmp_path):
    numbers = ",".join(str(i) for i in range(10))
    (tmp_path / "a.csv").write_text(f"path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na/1.jpg,{numbers}\n")
    points = read_landmarks(str(tmp_path / "a.csv"), "root")
    np.testing.assert_array_equal(points["root/a/1.jpg"], np.arange(10).reshape(5, 2))
    (tmp_path / "a.csv").write_text(f"a/1.jpg,{numbers}\nb.jpg,1,2\n")
    with pytest.raises(ValueError, match="line 2 has 3 fields"):
        read_landmarks(str(tmp_path / "a.csv"), "root")


def test_pairs_of_lfw_are_found_whatever_the_extension(tmp_path):
    root = tree(tmp_path, "A_B/A_B_0001.jpg", "A_B/A_B_0012.png", "C/C_0003.jpg")
    (tmp_path / "pairs.txt").write_text("1\t1\nA_B\t1\t12\nA_B\t1\tC\t3\n")
    paths, issame = read_pair_list(str(tmp_path / "pairs.txt"), root)
    assert [path[len(root) + 1 :] for path in paths] == [
        "A_B/A_B_0001.jpg",
        "A_B/A_B_0012.png",
        "A_B/A_B_0001.jpg",
        "C/C_0003.jpg",
    ]
    assert issame == [True, False]


@pytest.mark.parametrize(
    "text, words",
    [
        ("10\n", "lists no pair"),
        ("A\t1\n", "lists no pair"),
        ("10\nA one two\n", "line 2 is neither"),
        ("A_B\t1\t99\n", "A_B_0099.jpg .* which does not exist"),
    ],
)
def test_pair_lists_that_cannot_be_followed_are_refused(tmp_path, text, words):
    root = tree(tmp_path, "A_B/A_B_0001.jpg")
    (tmp_path / "pairs.txt").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_pair_list(str(tmp_path / "pairs.txt"), root)


def test_a_label_far_beyond_the_images_is_refused(tmp_path):
    (tmp_path / "a.lst").write_text("0\t16777215\ta.jpg\n")
    with pytest.raises(ValueError, match="1 images and labels up to 16777215; number the"):
        list_items(str(tmp_path / "a.lst"), str(tmp_path))


@pytest.mark.parametrize("head", ["", "path1,path2,label\n"])
def test_pairs_of_a_csv(tmp_path, head):
    for name in ("a.jpg", "b, c.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "p.csv").write_text(head + 'a.jpg,"b, c.jpg",1\na.jpg, a.jpg ,0\n')
    paths, issame = read_pair_list(str(tmp_path / "p.csv"), str(tmp_path))
    names = [os.path.basename(path) for path in paths]
    assert names == ["a.jpg", "b, c.jpg", "a.jpg", "a.jpg"] and issame == [True, False]


@pytest.mark.parametrize(
    "line, reason", [("a.jpg,a.jpg,2", "not `path1,path2,label`"), ("a.jpg,z.jpg,1", "z.jpg")]
)
def test_a_wrong_line_of_a_csv_of_pairs_is_named(tmp_path, line, reason):
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "p.csv").write_text(f"a.jpg,a.jpg,1\n{line}\n")
    with pytest.raises(ValueError, match=f"p.csv: line 2 .*{reason}"):
        read_pair_list(str(tmp_path / "p.csv"), str(tmp_path))


def test_a_count_of_too_many_digits_is_a_fault_of_its_line(tmp_path):
    (tmp_path / "pairs.txt").write_text("A_B\t1\t" + "9" * 10**5 + "\n")
    with pytest.raises(ValueError, match="pairs.txt: line 1 is neither"):
        read_pair_list(str(tmp_path / "pairs.txt"), str(tmp_path))
