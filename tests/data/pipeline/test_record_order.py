"""The order of records against a plain Python loop over the shards."""

import numpy as np
import pytest

from data.formats.manifest import Manifest
from data.pipeline.record_order import RecordStream, shard_and_number
from runtime.tf1 import tf


def stream(counts, buffer_size, host=0, hosts=1):
    shards = tuple((f"s{i}", count) for i, count in enumerate(counts))
    manifest = Manifest(sum(counts), 1, shards)
    return RecordStream([name for name, _ in shards], manifest, 3, buffer_size, host, hosts)


def groups_of(length, buffer_size):
    """The group of each shard that has records, numbered by the distinct quotients."""
    before, quotients = 0, []
    for count in length:
        quotients.append(before // buffer_size if count else None)
        before += count
    distinct = [q for i, q in enumerate(quotients) if q is not None and q not in quotients[:i]]
    return [distinct.index(q) if q is not None else None for q in quotients]


@pytest.mark.parametrize("buffer_size", [1, 4, 7, 100])
@pytest.mark.parametrize(
    "length", [[8, 8, 8], [5], [0, 3, 0, 0, 4, 1, 0], [9, 1, 1, 1, 9, 0, 2], [0, 0, 6]]
)
def test_shards_form_groups_that_fill_the_shuffle_buffer(length, buffer_size):
    with tf.Graph().as_default(), tf.Session() as session:
        length_S = tf.constant(length, tf.int64)
        found = session.run(stream([9], buffer_size)._groups(length_S, tf.cumsum(length_S)))
    wanted = groups_of(length, buffer_size)
    assert [group for group, count in zip(found, length) if count] == [
        group for group in wanted if group is not None
    ]
    assert (np.diff(found) >= 0).all()


def test_hosts_divide_the_images():
    shares = [stream([5, 4, 2], 8, host, 3) for host in range(3)]
    assert [share.low for share in shares] + [11] == [0] + [share.high for share in shares]


def test_a_records_name_holds_its_shard_and_its_number():
    assert shard_and_number((5 << 40) + 77) == (5, 77)
