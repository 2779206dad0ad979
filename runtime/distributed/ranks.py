"""Who takes part in a run: ranks (a device each), the hosts that drive them, and their sessions.

One process per host drives all its ranks in one graph. One device is one rank of one host: nothing
below is special for it.
"""

import dataclasses
from typing import Tuple

from runtime.tf1 import tf


@dataclasses.dataclass(frozen=True)
class Ranks:
    """per_host: devices of each host. hosts: an address:port for each, none if there is but one.
    host: which of them this process is. kind: CPU, GPU or NPU."""

    per_host: int = 1
    hosts: Tuple[str, ...] = ()
    host: int = 0
    kind: str = "CPU"
    cards: int = 1  # processes of one Ascend card each, which need no server to reach each other

    @property
    def host_count(self):
        return max(1, len(self.hosts), self.cards)

    @property
    def size(self):
        return self.per_host * self.host_count

    @property
    def local(self):
        """The numbers of this process's ranks."""
        first = self.host * self.per_host
        return range(first, first + self.per_host)

    @property
    def leads(self):
        """Whether this process writes what one of them must write."""
        return self.host == 0

    @property
    def home(self):
        """The device of what belongs to no rank, as the input; None leaves it to TensorFlow."""
        return f"/job:worker/replica:0/task:{self.host}/device:CPU:0" if self.hosts else None

    def device(self, rank):
        """The device of a rank of this process, for tf.device; None leaves it to TensorFlow."""
        if self.size == 1 or self.kind == "NPU":
            return None
        job = f"/job:worker/replica:0/task:{self.host}" if self.hosts else "/job:localhost"
        return f"{job}/device:{self.kind}:{rank - self.local[0]}"

    def scope(self, rank):
        """The variable scope of a rank's own copy of everything; the first of a host has none."""
        return f"replica_{rank - self.local[0]}" if rank != self.local[0] else ""

    def name(self, rank):
        """A rank in words, for a message."""
        return f"rank {rank}" + (f" ({self.hosts[rank // self.per_host]})" if self.hosts else "")


SINGLE = Ranks()


def prepared(proto, ranks):
    """A ConfigProto, with what these ranks need of it."""
    if ranks.kind == "CPU":
        proto.device_count["CPU"] = ranks.per_host
    if ranks.size > 1 and ranks.kind == "GPU":
        proto.experimental.collective_nccl = True
    if ranks.hosts:
        proto.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        proto.device_filters.append(f"/job:worker/task:{ranks.host}")  # waits for no other's master
    return proto


def open_target(proto, ranks):
    """Where the session runs: "" in this process; with several hosts the address of the server that
    this process starts, which the others' collectives reach."""
    if not ranks.hosts:
        return ""
    cluster = tf.train.ClusterSpec({"worker": list(ranks.hosts)})
    try:
        server = tf.train.Server(
            cluster, job_name="worker", task_index=ranks.host, config=proto, protocol="grpc"
        )
    except tf.errors.OpError:
        raise ValueError(
            f"--worker_hosts: {ranks.hosts[ranks.host]}, this host's own, cannot be served; is its "
            "port in use, or --task_index another host's?"
        ) from None
    _SERVERS.append(server)  # it lives as long as the process does
    return server.target


_SERVERS = []
