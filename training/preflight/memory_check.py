"""Whether a run fits into memory, checked before any of it is allocated."""

import logging
import re
from typing import Optional

from runtime.device import current
from runtime.distributed.ranks import Ranks
from runtime.tf1 import tf
from runtime.variables import variable_bytes
from training.config import TrainConfig
from training.cost.estimate import host_uses, net_bytes, step_peak
from training.graph.step import StepOps

GIB = float(2**30)
TOLERANCE = 0.15  # error of the estimate: a run is refused only if even this much less is too much


def check_fits_memory(
    session: tf.Session, ops: StepOps, config: TrainConfig, ranks: Ranks
) -> Optional[str]:
    """Refuses a run that cannot fit and warns where it is close. Returns how much it needs, for the
    log. The estimate is from the graph, whose variables are not allocated yet."""
    if not current().compiles_on_host:  # the graph does not show what its compiler allocates
        return None
    state = [sum(variable_bytes(variable) for variable in tower.state) for tower in ops.towers]
    tensors = step_peak(ops.towers[0], ops)
    if ranks.kind == "GPU":
        needs, room, where = max(state) + tensors, _smallest_gpu(session), "TensorFlow's GPU has"
    else:
        uses = host_uses(config, net_bytes(ops), ranks.per_host, ranks.host_count, waiting=0)
        needs = sum(state) + tensors * len(state) + sum(uses.values())
        room, where = machine_memory(), "this machine has"
    return compare_memory(needs, state[0], tensors, room, where)


def compare_memory(
    needs: float, state: float, tensors: float, room: Optional[float], where: str
) -> str:
    """`3.1 of 23.5 GiB`, or a ValueError. All in bytes; room: None where it is unknown."""
    if room is None:
        return f"{needs / GIB:.1f} GiB"
    sentence = (
        f"the run needs about {needs / GIB:.1f} GiB ({state / GIB:.1f} for weights and optimizer "
        f"state, {tensors / GIB:.1f} for the tensors of a step), and {where} {room / GIB:.1f}"
    )
    if needs * (1.0 - TOLERANCE) > room:
        raise ValueError(
            f"{sentence}; lower --batch_size or --sample_rate, or pass --accumulate or --recompute."
        )
    if needs > room * (1.0 - TOLERANCE):
        logging.warning("%s: it may not fit.", sentence)
    return f"{needs / GIB:.1f} of {room / GIB:.1f} GiB"


def _smallest_gpu(session: tf.Session) -> Optional[int]:
    limits = [d.memory_limit_bytes for d in session.list_devices() if d.device_type == "GPU"]
    return min(limits, default=None)


def machine_memory(
    meminfo: str = "/proc/meminfo", limit: str = "/sys/fs/cgroup/memory.max"
) -> Optional[int]:
    """Bytes that this machine has, or its container may use; None where neither can be read."""
    found = []
    for path, pattern, unit in ((meminfo, r"MemTotal:\s+(\d+) kB", 1024), (limit, r"^(\d+)$", 1)):
        try:
            with open(path) as stream:
                match = re.search(pattern, stream.read().strip())
        except OSError:
            continue
        found += [int(match.group(1)) * unit] if match else []
    return min(found, default=None)
