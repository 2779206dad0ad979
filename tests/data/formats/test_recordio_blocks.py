"""Blocks of a .rec: any division of the file gives the same records."""

import os

import numpy as np
import pytest

from data.formats.recordio_blocks import image_columns, label_fault, read_blocks
from tests.conftest import write_record_file


@pytest.fixture(scope="module")
def rec(tmp_path_factory):
    return write_record_file(str(tmp_path_factory.mktemp("rec")), identities=3, each=4)[0]


def images(rec, *extent):
    found = []
    for block in read_blocks(rec, *extent):
        columns = image_columns(block)
        for label, start, stop in zip(columns.label_R, columns.start_R, columns.stop_R):
            found.append((int(label), columns.data[start:stop].tobytes()))
    return found


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_stretches_hold_each_record_once(rec, parts):
    size = os.path.getsize(rec)
    edges = [size * i // parts // 4 * 4 for i in range(parts)] + [size]
    found = [item for a, b in zip(edges[:-1], edges[1:]) for item in images(rec, a, b)]
    assert found == images(rec) and [label for label, _ in found] == sorted([0, 1, 2] * 4)


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), float("inf")])
def test_a_label_that_is_no_identity_has_a_reason(label):
    assert label_fault(np.float32(label)) and label_fault(np.float32(3)) is None
