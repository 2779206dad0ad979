"""Who takes part in a run, and whether all of them were told the same."""

import dataclasses

from runtime import tf1
from runtime.distributed.hosts import check_port_is_free, find_hosts
from runtime.distributed.ranks import Ranks
from runtime.npu import card
from runtime.tf1 import tf
from training.plan import data_identity

# What each host may be told on its own.
OWN = {"config", "task_index", "eval_db_path", "tfrecords_file_path", "log_device_mapping"}


def find_ranks(config, environ):
    """The ranks of a run, of which this process drives its host's."""
    if config.device == "npu":
        return card.ranks(environ)
    hosts = find_hosts(config.worker_hosts, config.task_index, environ)
    check_port_is_free(hosts)
    if config.wire != "fp32" and not tf1.TF2:
        raise ValueError(
            f"--wire {config.wire} needs TensorFlow 2, whose collectives add in it; pass "
            "--wire fp32 on TensorFlow 1.15."
        )
    count = _devices(config)
    return Ranks(count, hosts.addresses, hosts.index, config.device.upper())


def _devices(config):
    """How many devices of this host take part."""
    if config.device != "gpu":
        return config.num_devices or 1
    found = len(tf.config.experimental.list_physical_devices("GPU"))
    if (config.num_devices or 1) > found:
        raise ValueError(
            f"--num_devices {config.num_devices or 1}: TensorFlow sees {found} GPUs on this "
            "machine; pass that many or fewer, or look at CUDA_VISIBLE_DEVICES."
        )
    return config.num_devices or found


def check_config_matches_across_hosts(session, config, plan, step, ranks, first):
    """Ends a run whose processes were not told the same, naming the first thing that differs."""
    if ranks.host_count == 1:
        return
    told = sorted(dataclasses.asdict(config).items())
    facts = [(f"--{name}", value) for name, value in told if name not in OWN]
    facts += [(f"the data's {name}", value) for name, value in data_identity(plan.manifest).items()]
    facts += [("TensorFlow", tf1.VERSION), ("the step to go on from", first)]
    facts += [("the number of devices", ranks.per_host), ("the hosts", ranks.hosts)]
    facts += [(f"call {call[0]} between ranks ({call[1]})", call) for call in step.calls]
    found = step.comparison.differing(session, facts)
    if found:
        name, other = found
        mine = dict(facts).get(name)
        raise ValueError(
            f"{name} is not the same on all hosts: {mine} here, on {ranks.name(ranks.local[0])}, "
            f"another value on {ranks.name(other)}; start all hosts with the same flags and data."
        )
