import os

import cv2
import numpy as np
import pytest

from data import inspect_dataset
from data.dataset_stats import SHOWN_EACH, SHOWN_IDENTITIES, survey
from data.eval_data_reader import write_pairs
from data.inspect_dataset import histogram
from tests.data.test_crop_geometry import faces
from tests.data.tiny_records import write_records
from tests.data.tiny_shards import picture, write_set


def inspected(path, capsys, *flags):
    assert inspect_dataset.main([str(path), "--contact_sheet", "", *flags]) in (0, None)
    return capsys.readouterr().out


def test_a_record_file_is_described(tmp_path, capsys):
    rec, _ = write_records(tmp_path, [(i // 3, picture(i)) for i in range(7)])
    text = inspected(rec, capsys)
    assert "InsightFace's: 4 header and range records" in text
    assert "images               7" in text
    assert "identities           3 (labels 0 to 2, 0 of them without images)" in text
    assert "min 1  median 3  max 3" in text
    assert "7  16 x 16" in text and "broken               0" in text
    assert inspected(tmp_path, capsys) == text  # the folder of a train.rec


def test_a_plain_record_file_without_index_is_described(tmp_path, capsys):
    rec, _ = write_records(tmp_path, [(0, picture(0)), (4, picture(1))], 0, header=None, idx=False)
    text = inspected(rec, capsys)
    assert "plain: no header record, images from key 0" in text and "no .idx" in text
    assert "2 (labels 0 to 4, 3 of them without images)" in text


def test_shards_are_described_and_a_damaged_one_is_named(tmp_path, capsys):
    path = write_set(tmp_path, (4, 5), identities=3)
    text = inspected(path, capsys)
    assert "2 TFRecord shards" in text and "images               9" in text
    name = os.path.join(path, "train-00000.tfrecords")
    with open(name, "r+b") as stream:
        stream.truncate(os.path.getsize(name) - 10)
    text = inspected(path, capsys)
    assert "images               8" in text and "broken               1" in text and name in text


def test_folders_are_described_and_no_image_is_missed(tmp_path, capsys):
    for person, count in (("ann", 1), ("bob", 2)):
        os.mkdir(str(tmp_path / person))
        for i in range(count):
            (tmp_path / person / f"{i}.jpg").write_bytes(picture(i, size=10 + i))
    (tmp_path / "bob" / "9.jpg").write_bytes(b"no image")
    text = inspected(tmp_path, capsys)
    assert "images               4" in text and "identities           2" in text
    assert "10 x 10" in text and "11 x 11" in text
    assert "broken               1" in text and "9.jpg is neither JPEG nor PNG" in text


def test_a_verification_set_is_described(tmp_path, capsys):
    path = str(tmp_path / "lfw.bin")
    write_pairs(path, [picture(i) for i in range(6)], [True, False, True])
    text = inspected(path, capsys)
    assert "3 pairs: 2 same, 1 different" in text and "images               6" in text


def test_decode_finds_what_the_ends_of_an_image_do_not_show(tmp_path, capsys):
    path = str(tmp_path / "lfw.bin")
    write_pairs(path, [picture(0), b"\xff\xd8\xff" + b"?" * 40 + b"\xff\xd9"], [True])
    assert "broken               0" in inspected(path, capsys)
    assert "broken               1" in inspected(path, capsys, "--decode")


def test_the_contact_sheet_shows_identities_in_rows(tmp_path, capsys):
    path = write_set(tmp_path, (60,), identities=20)
    sheet = str(tmp_path / "sheet.png")
    inspect_dataset.main([path, "--contact_sheet", sheet])
    assert sheet in capsys.readouterr().out
    image = cv2.imread(sheet)
    rows = image.shape[0] // (112 + 14 + 4)
    assert rows == SHOWN_IDENTITIES and image.shape[1] > SHOWN_EACH * 112


def test_the_survey_keeps_whole_identities_for_the_sheet(tmp_path):
    found = survey(write_set(tmp_path, (60,), identities=20))
    assert all(len(row) == 3 for row in found.rows())


def test_the_histogram_doubles():
    lines = histogram(np.array([1, 2, 3, 3, 9]))
    assert [line.split()[:2] for line in lines] == [["1", "1"], ["2-3", "3"], ["4-7", "0"]] + [
        ["8-15", "1"]
    ]
    assert lines[1].count("#") == 40 and lines[2].count("#") == 0


@pytest.mark.parametrize("name,words", [("none", "is not there"), ("some.txt", "is of no kind")])
def test_what_is_no_data_set_is_refused(tmp_path, name, words):
    (tmp_path / "some.txt").write_text("text")
    with pytest.raises(ValueError, match=words):
        inspect_dataset.main([str(tmp_path / name)])


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no images"):
        inspect_dataset.main([str(tmp_path)])


def test_two_sets_are_compared_by_their_mean_faces(tmp_path, capsys):
    for name, arguments in (("one", (0,)), ("same", (1, 1)), ("moved", (2, 8))):
        images = [cv2.imencode(".png", image)[1].tobytes() for image in faces(*arguments)]
        write_pairs(str(tmp_path / f"{name}.bin"), images, [True, False] * (len(images) // 4))
    one = str(tmp_path / "one.bin")
    assert "none: the mean faces" in inspected(one, capsys, "--compare", str(tmp_path / "same.bin"))
    text = inspected(one, capsys, "--compare", str(tmp_path / "moved.bin"))
    assert "moved.bin is 8 pixels down of this one" in text
    write_pairs(str(tmp_path / "few.bin"), images[:4], [True, False])
    assert "unknown: too few" in inspected(one, capsys, "--compare", str(tmp_path / "few.bin"))
