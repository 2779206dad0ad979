"""Whether a run fits the memory it will run in, told before any of it is taken."""

import logging
import re

from runtime.variables import variable_bytes
from training.cost.estimate import host_uses, net_bytes, step_peak

GIB = float(2**30)
WRONG = 0.15  # as far as an estimate may be off: a run is refused where even that does not save it


def check_fits_memory(session, step, config, ranks):
    """Ends a run that cannot fit; says it where it is close. The graph is there by now, and is what
    is reckoned from; its weights are not."""
    if ranks.kind == "NPU":  # what its compiler keeps, the graph does not tell
        return None
    state = [sum(variable_bytes(variable) for variable in tower.state) for tower in step.towers]
    passing = step_peak(step.towers[0], step)
    if ranks.kind == "GPU":
        needs, room, where = max(state) + passing, _least_gpu(session), "the GPU gives TensorFlow"
    else:
        beside = host_uses(config, net_bytes(step), ranks.per_host, ranks.host_count, waiting=0)
        needs = sum(state) + passing * len(state) + sum(beside.values())
        room, where = machine_memory(), "this machine has"
    return judge(needs, state[0], passing, room, where)


def judge(needs, state, passing, room, where):
    """`3.1 of 23.5 GiB`, or an error. All in bytes; room: None where nobody tells."""
    if room is None:
        return f"{needs / GIB:.1f} GiB"
    said = (
        f"the run needs about {needs / GIB:.1f} GiB ({state / GIB:.1f} for weights and their "
        f"state, {passing / GIB:.1f} for what a step holds), and {where} {room / GIB:.1f}"
    )
    if needs * (1.0 - WRONG) > room:
        raise ValueError(
            f"{said}; lower --batch_size or --sample_rate, or pass --accumulate or --recompute."
        )
    if needs > room * (1.0 - WRONG):
        logging.warning("%s: it may not fit.", said)
    return f"{needs / GIB:.1f} of {room / GIB:.1f} GiB"


def _least_gpu(session):
    limits = [d.memory_limit_bytes for d in session.list_devices() if d.device_type == "GPU"]
    return min(limits, default=None)


def machine_memory(meminfo="/proc/meminfo", limit="/sys/fs/cgroup/memory.max"):
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
