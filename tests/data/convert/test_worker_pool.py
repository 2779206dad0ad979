"""Calls in processes: results in order, progress here, errors as they were raised."""

import os

import pytest

from data.convert.worker_pool import cores, run_calls


def square(number, report):
    report(number)
    if number == 7:
        raise ValueError("seven is not allowed.")
    if number == 8:
        raise OSError(28, "No space left on device")
    if number == 9:
        return {}["nine"]
    return number * number, os.getpid()


@pytest.mark.parametrize("workers, processes", [(1, 1), (2, 2), (9, 5)])
def test_results_keep_the_order_of_the_calls(workers, processes):
    told = []
    results = run_calls(square, [(i,) for i in range(5)], workers, told.append)
    assert [value for value, _ in results] == [0, 1, 4, 9, 16]
    assert sorted(told) == [0, 1, 2, 3, 4]
    assert len({process for _, process in results}) == processes
    assert (os.getpid() in {process for _, process in results}) == (workers == 1)


@pytest.mark.parametrize("number, kind", [(7, ValueError), (8, OSError), (9, RuntimeError)])
def test_an_error_ends_all_and_a_defect_is_no_users_mistake(number, kind):
    with pytest.raises(kind) as caught:
        run_calls(square, [(1,), (number,)], 2, lambda _: None)
    assert type(caught.value) is kind
    assert number != 9 or "KeyError: 'nine'" in str(caught.value)


def test_cores_are_at_least_one_and_at_most_four():
    assert 1 <= cores() <= 4
