"""The contact sheet is a PNG with a row for each identity."""

import cv2

from data.contact_sheet import write_sheet
from tests.data.tiny_shards import picture


def test_each_row_is_an_identity_and_gets_a_strip_of_the_same_height(tmp_path):
    rows = [[(picture(i), f"person {i}"), (picture(i + 1), "")] for i in range(3)]
    heights = []
    for count in (1, 2, 3):
        path = str(tmp_path / f"{count}.png")
        write_sheet(path, rows[:count], 2)
        heights.append(cv2.imread(path).shape[0])
    assert heights[2] - heights[1] == heights[1] - heights[0] > 0
