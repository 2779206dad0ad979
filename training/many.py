"""What train_nets_mgpu.py does: reckon, start processes and watch them, or train on all ranks."""

import os

from runtime.distributed.hosts import find_hosts
from training.cost.table import print_plan
from training.launcher import supervise, this_host, this_server
from training.topology import find_ranks
from training.train import train


def run_multi_device(config):
    """Does what a MultiDeviceConfig asks for; returns this process's exit code."""
    if config.tfrecords_file_path is None and not (config.plan and config.num_output):
        raise ValueError(
            "--tfrecords_file_path is missing: name the directory of shards that "
            "data/mx2tfrecords.py wrote."
        )
    if config.plan:
        return print_plan(config)
    children = _children(config, os.environ)
    if children:
        return supervise(children, config.max_restarts if config.supervise else 0)
    return train(config, find_ranks(config, os.environ))


def _children(config, environ):
    """The processes that this one starts and watches; none if it is one of them, or needs none."""
    if config.device == "npu" and "RANK_ID" not in environ and (config.num_devices or 1) > 1:
        return this_server(config.num_devices, environ, config.directory("logs"))
    if not config.supervise:
        return []
    hosts = find_hosts(config.worker_hosts, config.task_index, environ)
    shared = config.output_path if hosts.addresses else None
    return this_host(None, shared, hosts.index, config.collective_timeout)
