"""Which ranks a process drives, and where."""

import socket

import pytest

from runtime.distributed.ranks import SINGLE, Ranks, open_target, prepared
from runtime.tf1 import tf


def test_a_single_device_is_left_to_tensorflow():
    assert (SINGLE.size, list(SINGLE.local), SINGLE.leads) == (1, [0], True)
    assert SINGLE.device(0) is None and SINGLE.host_device is None and SINGLE.scope(0) == ""
    assert open_target(prepared(tf.ConfigProto(), SINGLE), SINGLE) == ""


def test_ranks_are_counted_over_hosts():
    ranks = Ranks(per_host=4, hosts=("a:1", "b:2", "c:3"), host=2, kind="GPU")
    assert (ranks.size, list(ranks.local), ranks.leads) == (12, [8, 9, 10, 11], False)
    assert ranks.device(9) == "/job:worker/replica:0/task:2/device:GPU:1"
    assert ranks.host_device == "/job:worker/replica:0/task:2/device:CPU:0"
    assert [ranks.scope(rank) for rank in (8, 9)] == ["", "replica_1"]
    assert ranks.name(3) == "rank 3 (a:1)"


def test_virtual_devices_of_one_host_open_no_server():
    ranks = Ranks(per_host=2)
    proto = prepared(tf.ConfigProto(), ranks)
    assert proto.device_count["CPU"] == 2 and open_target(proto, ranks) == ""
    with tf.Session(config=proto) as session:
        assert sum(d.device_type == "CPU" for d in session.list_devices()) == 2


def test_a_host_does_not_wait_for_the_others_masters():
    ranks = Ranks(hosts=("a:1", "b:2"), host=1)
    proto = prepared(tf.ConfigProto(), ranks)
    assert list(proto.device_filters) == ["/job:worker/task:1"]
    assert proto.experimental.collective_group_leader == "/job:worker/replica:0/task:0"


def test_an_address_that_cannot_be_served_is_named():
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        ranks = Ranks(hosts=(f"127.0.0.1:{port}", "127.0.0.1:1"), host=0)
        with pytest.raises(ValueError, match=f"127.0.0.1:{port}.*cannot be bound"):
            open_target(prepared(tf.ConfigProto(), ranks), ranks)
