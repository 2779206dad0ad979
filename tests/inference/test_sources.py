import cv2
import numpy as np
import pytest

from data.eval_data_reader import write_pairs
from inference.sources import decode_batch, grouped, open_source
from tests.inference.tiny_models import HEIGHT, IMAGES, WIDTH

SIZE = (HEIGHT, WIDTH)
PNG = [cv2.imencode(".png", image[:, :, ::-1])[1].tobytes() for image in IMAGES]


def read(source, start=0):
    """(names, images) of a source from a position on."""
    batch = decode_batch(list(source.items(start)), source, SIZE)
    assert not batch.failed
    return batch.names, batch.images_BHWC


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images" / "b").mkdir(parents=True)
    for name, content in zip(("c.png", "a.PNG", "b/z.png"), PNG):
        (tmp_path / "images" / name).write_bytes(content)
    return tmp_path / "images"


def test_a_directory_is_read_in_the_order_of_its_names(folder):
    (folder / "b" / "z.png").unlink()
    (folder / "b").rmdir()
    names, images = read(open_source(str(folder), SIZE))
    assert names == ["a.PNG", "c.png"]
    np.testing.assert_array_equal(images, IMAGES[[1, 0]])


def test_recursive_names_are_relative_paths(folder):
    names, _ = read(open_source(str(folder), SIZE, recursive=True))
    assert names == ["a.PNG", "b/z.png", "c.png"]


def test_a_sub_directory_needs_the_flag(folder):
    with pytest.raises(ValueError, match="b is a directory; pass --recursive"):
        open_source(str(folder), SIZE)


def test_other_files_can_be_ignored(folder):
    (folder / "notes.txt").write_text("x")
    source = open_source(str(folder), SIZE, recursive=True, ignore_others=True)
    assert (source.images, source.ignored) == (3, ("notes.txt",))


def test_a_text_list_is_relative_to_itself(folder):
    (folder / "list.txt").write_text("c.png\n\nb/z.png\n")
    names, images = read(open_source(str(folder / "list.txt"), SIZE))
    assert names == ["c.png", "b/z.png"]
    np.testing.assert_array_equal(images, IMAGES[[0, 2]])


def test_an_lst_of_im2rec_is_a_list(folder):
    (folder / "train.lst").write_text("0\t1\tc.png\n1\t1\tb/z.png\n")
    assert read(open_source(str(folder / "train.lst"), SIZE))[0] == ["c.png", "b/z.png"]


def test_an_empty_list_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(ValueError, match="list.txt lists no image"):
        open_source(str(tmp_path / "list.txt"), SIZE)


def test_an_array_has_rows_and_no_names(tmp_path):
    np.save(str(tmp_path / "a.npy"), IMAGES)
    source = open_source(str(tmp_path / "a.npy"), SIZE)
    assert not source.named
    np.testing.assert_array_equal(read(source, start=2)[1], IMAGES[2:])


def test_a_bin_set_is_read_in_its_order(tmp_path):
    write_pairs(str(tmp_path / "a.bin"), PNG[:4], [True, False])
    names, images = read(open_source(str(tmp_path / "a.bin"), SIZE), start=1)
    assert names == ["1", "2", "3"]
    np.testing.assert_array_equal(images, IMAGES[1:4])


def test_shards_are_read_in_their_order(small):
    source = open_source(small.shards, (small.size, small.size))
    items = list(source.items(0))
    assert len(items) == source.images == small.images
    assert len({item.name for item in items}) == small.images
    assert [item.name for item in source.items(5)] == [item.name for item in items[5:]]


def test_the_name_of_a_record_starts_with_its_label(small):
    source = open_source(small.shards, (small.size, small.size))
    labels = {item.name.split("/")[0] for item in source.items(0)}
    assert labels == {str(label) for label in range(small.identities)}


def test_an_unreadable_image_has_a_name_and_a_reason(folder):
    (folder / "a.PNG").write_bytes(b"x")
    source = open_source(str(folder), SIZE, recursive=True)
    batch = decode_batch(list(source.items(0)), source, SIZE)
    assert [name for name, _ in batch.failed] == ["a.PNG"] and batch.rows == [1, 2]
    assert "a.PNG cannot be decoded" in batch.failed[0][1]


def test_a_file_that_is_gone_has_a_reason(folder):
    source = open_source(str(folder), SIZE, recursive=True)
    (folder / "c.png").unlink()
    batch = decode_batch(list(source.items(0)), source, SIZE)
    assert "c.png: No such file" in batch.failed[0][1]


def test_equal_sources_have_equal_identities(folder):
    first, second = (open_source(str(folder), SIZE, recursive=True) for _ in range(2))
    assert first.identity == second.identity


def test_a_new_file_changes_the_identity(folder):
    before = open_source(str(folder), SIZE, recursive=True).identity
    (folder / "d.png").write_bytes(PNG[3])
    assert open_source(str(folder), SIZE, recursive=True).identity != before


def test_groups_have_the_size_and_a_rest():
    assert list(grouped(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]


def test_another_ending_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="is neither a directory nor an .npy"):
        open_source(str(tmp_path / "a.jpg"), SIZE)
