"""The cached matrix is overwritten before it is deleted."""

import mmap
import os

import pytest

from serving.erasure import erase_cache


@pytest.fixture
def cache(tmp_path):
    path = tmp_path / "bank.db.index"
    path.write_bytes(b"x" * 5000)
    return str(path)


def test_cache_that_another_process_maps_becomes_zero(cache):
    with open(cache, "rb") as stream:
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    erase_cache(cache)
    assert not os.path.exists(cache) and mapped[:] == bytes(5000)


def test_unfinished_cache_of_a_process_that_is_gone_is_deleted(cache):
    part = f"{cache}.{2**22 + 1}.part"  # above the largest process id of Linux
    os.replace(cache, part)
    erase_cache(cache)
    assert not os.path.exists(part)


def test_unfinished_cache_of_a_living_process_is_kept(cache):
    part = f"{cache}.{os.getppid()}.part"
    os.replace(cache, part)
    erase_cache(cache)
    assert os.path.exists(part)


def test_missing_cache_is_no_error(tmp_path):
    erase_cache(str(tmp_path / "none.index"))
