"""CRC-32C, the checksum of TFRecords, of many stretches of one buffer. Shape letter: R.

TensorFlow's own machine code does it at some GB/s and is called where it is, in the shared library
of either TensorFlow, without importing TensorFlow. Where that library or its function is not to be
found, or does not give the checksum of the standard's test vector, NumPy does the same more slowly.
"""

import ctypes
import functools
import glob
import importlib.util
import os
import sys
from typing import Any

import numpy as np

POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected
MASK_DELTA = 0xA282EAD8  # TFRecord's masking: rotate right by 15, then add this
CHECK = (b"123456789", 0xE3069283)  # the standard's test vector
# The function's name in libtensorflow_framework, and (crc, address, length) as its arguments.
FUNCTIONS = (
    ("_ZN10tensorflow6crc32c6ExtendEjPKcm", lambda crc, address, length: (crc, address, length)),
    (  # 2.21: a std::string_view is passed as length, address
        "_ZN4absl12lts_2025081412crc_internal20ExtendCrc32cInternalENS0_8crc32c_t"
        "ESt17basic_string_viewIcSt11char_traitsIcEE",
        lambda crc, address, length: (crc, length, address),
    ),
)


def masked(crc: Any) -> Any:
    """TFRecord's masked form of a checksum: int -> int, or uint32 [R] -> uint32 [R]."""
    if not isinstance(crc, int):
        crc = crc.astype(np.int64)
    mixed = ((crc >> 15) | (crc << 17)) + MASK_DELTA & 0xFFFFFFFF
    return mixed if isinstance(crc, int) else mixed.astype(np.uint32)


def crc32c(data: bytes) -> int:
    """The checksum of bytes: int."""
    array, (function, arguments) = np.frombuffer(data, np.uint8), _native()
    if function is not None:
        return function(*arguments(0, array.ctypes.data, array.size))
    ends = np.array([0]), np.array([array.size])
    return int(extend_in_numpy(np.zeros(1, np.uint32), array, *ends)[0])


def extend(
    crc_R: np.ndarray, data: np.ndarray, start_R: np.ndarray, stop_R: np.ndarray
) -> np.ndarray:
    """Extends the checksums crc_R over data[start:stop] of each record: uint32 [R].

    data: uint8, contiguous."""
    function, arguments = _native()
    if function is None:
        return extend_in_numpy(crc_R, data, start_R, stop_R)
    columns = arguments(crc_R, start_R + data.ctypes.data, stop_R - start_R)
    return np.array(list(map(function, *(column.tolist() for column in columns))), np.uint32)


def extend_rows(crc_R: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Extends the checksums crc_R over rows, uint8 [R, bytes], of one length each."""
    table, state = _table(), ~np.asarray(crc_R, np.uint32)
    for column in rows.T:
        state = table[(state ^ column) & 0xFF] ^ (state >> 8)
    return ~state


def extend_in_numpy(
    crc_R: np.ndarray, data: np.ndarray, start_R: np.ndarray, stop_R: np.ndarray
) -> np.ndarray:
    """extend() without native code: all records advance together, two bytes a step."""
    table, state = _table_of_pairs(), ~np.asarray(crc_R, np.uint32)
    length_R = np.asarray(stop_R) - np.asarray(start_R)
    order = np.argsort(-length_R, kind="stable")  # so that the records still running are a prefix
    state, start, length = state[order], np.asarray(start_R)[order], length_R[order]
    running = np.searchsorted(-length, -np.arange(1, int(length.max(initial=0)) + 1), side="right")
    at = 0
    while at < len(running):
        both = running[at + 1] if at + 1 < len(running) else 0
        last = slice(both, running[at])  # these end on an odd byte
        state[last] = _one_byte(state[last], data[start[last] + at])
        if both:
            place = start[:both] + at
            pair = data[place].astype(np.uint32) | data[place + 1].astype(np.uint32) << 8
            state[:both] = table[(state[:both] ^ pair) & 0xFFFF] ^ (state[:both] >> 16)
        at += 2
    out = np.empty_like(state)
    out[order] = ~state
    return out


def _one_byte(state, byte):
    return _table()[(state ^ byte) & 0xFF] ^ (state >> 8)


@functools.lru_cache(maxsize=None)
def _table():
    state = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        state = (state >> 1) ^ (POLYNOMIAL * (state & 1)).astype(np.uint32)
    return state


@functools.lru_cache(maxsize=None)
def _table_of_pairs():
    state = np.arange(1 << 16, dtype=np.uint32)
    for _ in range(16):
        state = (state >> 1) ^ (POLYNOMIAL * (state & 1)).astype(np.uint32)
    return state


@functools.lru_cache(maxsize=None)
def _native():
    """(TensorFlow's function, the order of its arguments); (None, None) where it is not there."""
    for path in _libraries():
        library = _load(path)
        for name, arguments in FUNCTIONS:
            function = getattr(library, name, None)
            if function is None:  # also of a library that could not be loaded
                continue
            function.restype = ctypes.c_uint32
            function.argtypes = arguments(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t)
            text, expected = CHECK
            address = ctypes.cast(text, ctypes.c_void_p).value
            if function(*arguments(0, address, len(text))) == expected:
                return function, arguments
    return None, None


def _load(path):
    """The library, or None. It greets on standard error while it loads, past every setting."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        return ctypes.CDLL(path)
    except OSError:
        return None
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _libraries():
    for package in ("tensorflow", "tensorflow_core"):
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations if spec else ():
            yield from sorted(glob.glob(os.path.join(folder, "libtensorflow_framework.*")))
