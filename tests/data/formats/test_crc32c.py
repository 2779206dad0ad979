"""CRC-32C against the standard's test vector, with and without native code."""

import numpy as np

from data.formats.crc32c import crc32c, extend, extend_in_numpy, extend_rows, masked

DATA = np.random.RandomState(0).randint(0, 256, 1000).astype(np.uint8)
START, STOP = np.array([0, 7, 500, 20]), np.array([0, 8, 999, 41])


def test_the_checksum_of_the_standards_vector():
    assert crc32c(b"123456789") == 0xE3069283 and crc32c(b"") == 0


def test_numpy_and_native_code_agree_on_each_stretch():
    zeros = np.zeros(len(START), np.uint32)
    found = extend_in_numpy(zeros, DATA, START, STOP)
    assert found.tolist() == extend(zeros, DATA, START, STOP).tolist()
    assert found.tolist() == [crc32c(DATA[a:b].tobytes()) for a, b in zip(START, STOP)]


def test_a_checksum_can_be_extended():
    rows = DATA[:30].reshape(3, 10)
    first = extend_rows(np.zeros(3, np.uint32), rows[:, :4])
    assert extend_rows(first, rows[:, 4:]).tolist() == [crc32c(row.tobytes()) for row in rows]


def test_masking_is_the_same_for_a_number_and_an_array():
    values = [0, 1, 0xFFFFFFFF, 0xE3069283]
    assert masked(np.array(values, np.uint32)).tolist() == [masked(value) for value in values]
    assert masked(0) == 0xA282EAD8
