"""Parts of the conversion's passes; the passes themselves run in test_mx2tfrecords.py."""

import numpy as np
import pytest

from data.convert.shuffle import Plan, Tally, note_broken, stretches, union


@pytest.mark.parametrize("size, count, unit", [(100, 3, 4), (5, 8, 4), (64, 4, 16), (1, 1, 4)])
def test_stretches_join_and_begin_at_whole_units(size, count, unit):
    found = stretches(size, count, unit)
    assert found[0][0] == 0 and found[-1][1] == size and len(found) <= count
    assert [end for _, end in found[:-1]] == [begin for begin, _ in found[1:]]
    assert all(begin % unit == 0 and begin < end for begin, end in found)


def test_labels_of_two_stretches_are_united():
    assert union(np.array([True, False]), np.array([False, False, True])).tolist() == [1, 0, 1]


def test_broken_records_end_the_conversion_beyond_the_limit():
    plan = Plan("a.rec", "work", 10, 1, None, skip=True, max_errors=1)
    tally = Tally()
    note_broken(plan, tally, [(4, "is cut off")])
    with pytest.raises(ValueError, match="more than --max_errors 1 records are broken"):
        note_broken(plan, tally, [(8, "is cut off")])
