"""A page of images with a word under each row or image, to be looked at by a person."""

import os
from typing import List, Tuple

import cv2
import numpy as np

from data.formats.image_headers import decoded

TILE, GAP, LINE = 112, 4, 14
PAPER, INK = (255, 255, 255), (60, 60, 60)
BROKEN = (200, 200, 200)


def write_sheet(path: str, rows: List[List[Tuple[bytes, str]]], columns: int) -> None:
    """rows: [[(encoded image, caption)]], at most `columns` each -> a PNG at path."""
    high, wide = TILE + LINE + GAP, TILE + GAP
    sheet = np.full((len(rows) * high + GAP, columns * wide + GAP, 3), PAPER, np.uint8)
    for y, row in enumerate(rows):
        for x, (encoded, caption) in enumerate(row[:columns]):
            top, left = GAP + y * high, GAP + x * wide
            sheet[top : top + TILE, left : left + TILE] = _tile(encoded)
            place = (left, top + TILE + LINE - 4)
            cv2.putText(sheet, caption[:18], place, 0, 0.36, INK, 1, cv2.LINE_AA)
    coded = cv2.imencode(".png", sheet)[1]
    with open(path + ".part", "wb") as stream:
        stream.write(coded.tobytes())
    os.replace(path + ".part", path)


def _tile(encoded):
    """The image within a square, as large as fits; gray and crossed out if it does not decode."""
    image = decoded(encoded)
    tile = np.full((TILE, TILE, 3), BROKEN, np.uint8)
    if image is None:
        return cv2.line(tile, (0, 0), (TILE, TILE), INK, 1)
    scale = TILE / max(image.shape[:2])
    size = tuple(max(1, int(round(side * scale))) for side in image.shape[1::-1])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = image if scale == 1 else cv2.resize(image, size, interpolation=method)
    top, left = (TILE - small.shape[0]) // 2, (TILE - small.shape[1]) // 2
    tile[top : top + small.shape[0], left : left + small.shape[1]] = small
    return tile
