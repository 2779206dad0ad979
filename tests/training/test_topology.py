"""The ranks of a run from its flags and environment."""

import pytest

from runtime.distributed.hosts import free_addresses
from runtime.flags import build
from runtime.tf1 import TF2
from training.config import MultiDeviceConfig
from training.topology import PER_HOST, find_ranks


def ranks_of(**flags):
    return find_ranks(build(MultiDeviceConfig, dict(tfrecords_file_path="unused", **flags)), {})


def test_one_device_is_a_run_of_one_rank():
    ranks = ranks_of()
    assert (ranks.size, ranks.host_count, ranks.kind, list(ranks.local)) == (1, 1, "CPU", [0])


def test_the_devices_of_a_host_are_its_ranks():
    ranks = ranks_of(num_devices=3)
    assert (ranks.size, list(ranks.local), ranks.leads) == (3, [0, 1, 2], True)


def test_the_ranks_of_a_host_follow_those_of_the_hosts_before():
    ranks = ranks_of(num_devices=2, worker_hosts=tuple(free_addresses(3)), task_index=1)
    assert (ranks.size, list(ranks.local), ranks.leads) == (6, [2, 3], False)


def test_more_gpus_than_there_are_is_one_sentence():
    with pytest.raises(ValueError, match="--num_devices 2: TensorFlow sees 0 GPUs"):
        ranks_of(device="gpu", num_devices=2)


@pytest.mark.skipif(TF2, reason="TensorFlow 2 has the collectives")
def test_a_data_type_of_the_wire_needs_tensorflow_2():
    with pytest.raises(ValueError, match="--wire bf16 needs the collectives of TensorFlow 2"):
        ranks_of(wire="bf16")


def test_what_may_differ_between_hosts_are_flags():
    names = {field for field in MultiDeviceConfig.__dataclass_fields__}
    assert PER_HOST <= names
