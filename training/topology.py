"""The ranks of a run, and whether all hosts have the same config and data."""

import dataclasses
from typing import Any, List, Mapping, Tuple

from runtime import gpu_preflight, tf1
from runtime.device import strategy
from runtime.distributed.hosts import check_port_is_free, find_hosts
from runtime.distributed.ranks import Ranks
from runtime.tf1 import tf
from training.config import MultiDeviceConfig, TrainConfig
from training.graph.step import StepOps

# Flags that may differ between hosts.
PER_HOST = {"config", "task_index", "eval_db_path", "tfrecords_file_path", "log_device_mapping"}


def find_ranks(config: MultiDeviceConfig, environ: Mapping[str, str]) -> Ranks:
    """The ranks of a run, of which this process drives those of its host."""
    ranks = strategy(config.device).ranks(environ)
    if ranks is not None:
        return ranks
    hosts = find_hosts(config.worker_hosts, config.task_index, environ)
    check_port_is_free(hosts)
    if config.wire != "fp32" and not tf1.TF2:
        raise ValueError(
            f"--wire {config.wire} needs the collectives of TensorFlow 2; pass "
            "--wire fp32 on TensorFlow 1.15."
        )
    count = _devices(config)
    return Ranks(count, hosts.addresses, hosts.index, config.device.upper())


def _devices(config: MultiDeviceConfig) -> int:
    """The number of devices of this host that take part."""
    if config.device != "gpu":
        return config.num_devices or 1
    found = len(tf.config.experimental.list_physical_devices("GPU"))
    if (config.num_devices or 1) > found:
        raise ValueError(
            f"--num_devices {config.num_devices or 1}: TensorFlow sees {found} GPUs on this "
            "machine; pass that many or fewer, or check CUDA_VISIBLE_DEVICES. "
            f"{gpu_preflight.report()}"
        )
    return config.num_devices or found


def check_config_matches_across_hosts(
    session: tf.Session,
    config: TrainConfig,
    dataset: Mapping[str, Any],
    ops: StepOps,
    ranks: Ranks,
    first_step: int,
) -> None:
    """Refuses a run whose processes have different flags or data, naming the first difference.
    dataset: plan.data_identity of the training data."""
    if ranks.host_count == 1:
        return
    flags = sorted(dataclasses.asdict(config).items())
    facts: List[Tuple[str, Any]] = [
        (f"--{name}", value) for name, value in flags if name not in PER_HOST
    ]
    facts += [(f"the data's {name}", value) for name, value in dataset.items()]
    facts += [("TensorFlow", tf1.VERSION), ("the step to resume from", first_step)]
    facts += [("the number of devices", ranks.per_host), ("the hosts", ranks.hosts)]
    facts += [(f"call {call[0]} between ranks ({call[1]})", call) for call in ops.calls]
    found = ops.comparison.first_difference(session, facts)
    if found:
        name, other = found
        own = dict(facts).get(name)
        raise ValueError(
            f"{name} differs between hosts: {own} here, on {ranks.name(ranks.local[0])}, another "
            f"value on {ranks.name(other)}; start all hosts with the same flags and data."
        )
