from inference.micro_batch import MicroBatch


def choose(seconds_per_image):
    """(chosen size, sizes that were tried) where a run's time is known."""
    batch, tried = MicroBatch(), []
    while batch.chosen is None:
        size = batch.size
        tried.append(size)
        batch.record(size, size * seconds_per_image(size))
    return batch.chosen, sorted(set(tried))


def test_the_size_with_the_least_time_an_image_is_chosen():
    assert choose(lambda size: abs(size - 8) + 1.0)[0] == 8


def test_larger_sizes_are_not_tried_when_two_are_slower():
    assert choose(float) == (1, [1, 2, 4])


def test_the_first_run_of_a_size_is_not_counted():
    batch = MicroBatch((1, 2))
    for seconds in (100.0, 1.0, 1.0):
        batch.record(1, seconds)
    for _ in range(3):
        batch.record(2, 4.0)
    assert batch.chosen == 1


def test_a_short_last_batch_is_not_counted():
    batch = MicroBatch((4, 8))
    batch.record(3, 0.0)
    assert batch.size == 4 and batch.chosen is None


def test_a_single_size_needs_no_trial():
    assert MicroBatch((16,)).chosen == 16
