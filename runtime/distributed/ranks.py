"""The ranks of a run (one device each), the hosts that drive them, and their sessions.

One process per host drives all its ranks in one graph. A single device is the case of one rank on
one host.
"""

import dataclasses
from typing import Any, List, Optional, Tuple

from runtime.tf1 import tf


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The ranks of a run, as this process sees them."""

    per_host: int = 1  # devices of each host
    hosts: Tuple[str, ...] = ()  # address:port of each host; empty for a single host
    host: int = 0  # index of this process among the hosts
    kind: str = "CPU"  # CPU, GPU or NPU
    cards: int = 1  # processes of one Ascend card each, which need no server to reach each other

    @property
    def host_count(self) -> int:
        return max(1, len(self.hosts), self.cards)

    @property
    def size(self) -> int:
        return self.per_host * self.host_count

    @property
    def local(self) -> range:
        """The ranks of this process."""
        first = self.host * self.per_host
        return range(first, first + self.per_host)

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes logs, checkpoints and reports."""
        return self.host == 0

    @property
    def host_device(self) -> Optional[str]:
        """The device of ops of no rank, such as the input; None: TensorFlow chooses."""
        return f"/job:worker/replica:0/task:{self.host}/device:CPU:0" if self.hosts else None

    def device(self, rank: int) -> Optional[str]:
        """The device of a rank of this process, for tf.device; None: TensorFlow chooses."""
        if self.size == 1 or self.kind == "NPU":
            return None
        job = f"/job:worker/replica:0/task:{self.host}" if self.hosts else "/job:localhost"
        return f"{job}/device:{self.kind}:{rank - self.local[0]}"

    def scope(self, rank: int) -> str:
        """The variable scope of a rank's copy of the model; empty for a host's first rank."""
        return f"replica_{rank - self.local[0]}" if rank != self.local[0] else ""

    def name(self, rank: int) -> str:
        """The rank and its host, for a message."""
        return f"rank {rank}" + (f" ({self.hosts[rank // self.per_host]})" if self.hosts else "")


SINGLE = Ranks()


def prepared(proto: Any, ranks: Ranks) -> Any:
    """A ConfigProto -> the same, with the options that these ranks need."""
    if ranks.kind == "CPU":
        proto.device_count["CPU"] = ranks.per_host
    if ranks.size > 1 and ranks.kind == "GPU":
        proto.experimental.collective_nccl = True
    if ranks.hosts:
        proto.experimental.collective_group_leader = "/job:worker/replica:0/task:0"
        # Without the filter the session waits until the masters of all other hosts respond.
        proto.device_filters.append(f"/job:worker/task:{ranks.host}")
    return proto


def open_target(proto: Any, ranks: Ranks) -> str:
    """The target of tf.Session: "" for this process; with several hosts the address of the server
    that this process starts, which the collectives of the others connect to."""
    if not ranks.hosts:
        return ""
    cluster = tf.train.ClusterSpec({"worker": list(ranks.hosts)})
    try:
        server = tf.train.Server(
            cluster, job_name="worker", task_index=ranks.host, config=proto, protocol="grpc"
        )
    except tf.errors.OpError:
        raise ValueError(
            f"--worker_hosts: {ranks.hosts[ranks.host]}, this host's own, cannot be bound: its "
            "port is in use or --task_index is that of another host. Free the port or correct "
            "--task_index."
        ) from None
    _SERVERS.append(server)  # it lives as long as the process does
    return server.target


_SERVERS: List[Any] = []
