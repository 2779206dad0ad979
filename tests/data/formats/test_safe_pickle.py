"""The pickle reader runs nothing; what sets hold is tested in test_eval_data_reader.py."""

import os
import pickle

import numpy as np
import pytest

from data.formats.safe_pickle import load


def saved(tmp_path, value, protocol=3):
    path = tmp_path / "x.bin"
    path.write_bytes(pickle.dumps(value, protocol))
    return str(path)


@pytest.mark.parametrize("protocol", range(5))
def test_plain_values_are_those_of_pickle(tmp_path, protocol):
    value = [True, None, 3, 2.5, [b"bytes"], ()]
    found = load(saved(tmp_path, value, protocol))
    found[4] = [item if type(item) is bytes else item.encode() for item in found[4]]
    assert found == value


def test_an_array_keeps_shape_and_values(tmp_path):
    array = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert (load(saved(tmp_path, array)).to_numpy() == array).all()


def test_a_callable_is_refused_and_not_called(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    with pytest.raises(ValueError):
        load(saved(tmp_path, Hostile()))
    assert not (tmp_path / "made").exists()
