"""Memory of one rank of a run by use, computed from its graph before a step is run.

There is no table of networks: the rank's program is built as in training, for as many ranks as
there will be, and peak_memory.py computes the peak of its tensors. n images of a rank.
"""

import collections
from typing import Dict, List, NamedTuple, Optional, Set, Tuple

from checkpoint.writer import save_op
from data.pipeline.batches import READ_AHEAD, batches_at_once
from runtime.distributed.ranks import Ranks
from runtime.tf1 import tf
from runtime.variables import variable_bytes
from training.config import TrainConfig
from training.cost.communication import Exchange, exchanges
from training.cost.peak_memory import Live, live_tensors, needed, scope_of
from training.graph.optimizer import RULES
from training.graph.settings import step_settings
from training.graph.step import StepOps, build_step
from training.graph.tower import Tower

HEAD = "head: cosines and softmax"
RECORD_BYTES = 9000  # of a 112 x 112 JPEG record, as the published data sets hold them
RECORD_ROOM = 500  # what tf.data adds to each buffered record
# What a training process needs above its variables and tensors, measured by benchmarks/estimate.py:
# sessions, threads, malloc's reserve; and for each byte of the weights a share of the graph and of
# kernels' scratch memory.
RUNTIME_BYTES, RUNTIME_SHARE = 350 << 20, 1.5
IMPORT_BYTES = 450 << 20  # of a process that has only imported its libraries


class Estimate(NamedTuple):
    """What a run needs."""

    device: Dict[str, int]  # use -> bytes of one rank
    host: Dict[str, int]  # use -> bytes of a host's process, without its ranks
    exchanges: List[Exchange]  # of a rank in a step


def estimate(config: TrainConfig, identities: int, per_host: int = 1, hosts: int = 1) -> Estimate:
    """What a run needs. No data, device or other host need exist. identities: of the head;
    per_host: devices of each host."""
    with tf.Graph().as_default():
        ops = one_rank(config, identities, per_host, hosts)
        return Estimate(
            device_uses(ops.towers[0], ops, per_host * hosts),
            host_uses(config, net_bytes(ops), per_host, hosts),
            exchanges(ops, per_host * hosts),
        )


class _First(Ranks):
    """All ranks of a run, of which this process builds the first alone."""

    @property
    def local(self) -> range:
        return range(1)


def one_rank(
    config: TrainConfig, identities: int, per_host: int = 1, hosts: int = 1, kind: str = "CPU"
) -> StepOps:
    """The step of a run's first rank, in the current graph. No data, device or other host need
    exist."""
    ranks = _First(
        per_host, tuple(f"host{i}:1" for i in range(hosts)) if hosts > 1 else (), 0, kind
    )
    parts = ranks.size * config.accumulate
    if config.batch_size % parts:
        raise ValueError(
            f"--batch_size {config.batch_size} cannot be divided among {ranks.size} devices"
            f"{' and --accumulate' if config.accumulate > 1 else ''}; pass a multiple of {parts}."
        )
    images = config.batch_size // parts
    images_nHWC = tf.placeholder(tf.uint8, [images] + list(config.image_size) + [3], "images")
    labels_n = tf.placeholder(tf.int64, [images], "labels")
    return build_step(step_settings(config, identities), [(images_nHWC, labels_n)], ranks)


def device_uses(tower: Tower, ops: StepOps, size: int = 1) -> Dict[str, int]:
    """{use: bytes} of one rank's device, once training runs. size: of all ranks."""
    uses = collections.OrderedDict(_state(tower))
    step_uses, most = _step_uses(tower, ops)
    uses.update(step_uses)
    for use, fetches in (
        ("more when validating", [tower.plain_bD, tower.mirrored_bD]),
        ("more when saving", [save_op("", "", tf.global_variables(), size)]),
    ):
        more = max(0, live_tensors(fetches).peak - most)
        uses[use], most = more, most + more
    return collections.OrderedDict((use, size) for use, size in uses.items() if size)


def _state(tower: Tower) -> Dict[str, int]:
    """What is allocated for the whole run."""
    uses = collections.OrderedDict.fromkeys(
        ("weights of the net", "class centres", "optimizer's state", "averaged weights"), 0
    )
    slots = {name for rule in RULES.values() for name in rule.slots} | {"Adam_steps"}
    net = {id(variable) for variable in tower.backbone}
    for variable in tower.state:
        last = variable.op.name.split("/")[-1]
        if last in slots:
            use = "optimizer's state"
        elif last == "ExponentialMovingAverage":
            use = "averaged weights"
        else:
            use = "weights of the net" if id(variable) in net else "class centres"
        uses[use] += variable_bytes(variable)
    sums = [v for v in tf.local_variables() if not v.op.name.startswith("replica_")]
    uses["gradient accumulation"] = sum(variable_bytes(variable) for variable in sums)
    return uses


def step_peak(tower: Tower, ops: StepOps) -> int:
    """Bytes of tensors that a step of one rank holds at most, apart from its variables."""
    return _fullest(tower, ops).peak


def _fullest(tower: Tower, ops: StepOps) -> Live:
    runs = [[tower.update_op, ops.scalars["inference_loss"]]] + [[op] for op in ops.accumulate[:1]]
    return max((live_tensors(run) for run in runs), key=lambda live: live.peak)


def _step_uses(tower: Tower, ops: StepOps) -> Tuple[Dict[str, int], int]:
    """({use: bytes} at the instant of a step that holds most, those bytes)."""
    most, scope = _fullest(tower, ops), scope_of(tower)
    forward = {op.name for op in needed([ops.scalars["inference_loss"]])}
    behind = _behind(needed([tower.update_op] + ops.accumulate[:1]), scope)
    uses = collections.OrderedDict.fromkeys(("activations", HEAD, "gradients"), 0)
    for name, size in most.held.items():
        inside = scope in name.split("/")
        if inside and name in forward:
            uses["activations"] += size
        else:
            uses["gradients" if inside or name in behind else HEAD] += size
    uses[HEAD] += most.peak - sum(most.held.values())  # of its loops over blocks of rows
    return uses, most.peak


def _behind(ops: List[tf.Operation], scope: str) -> Set[str]:
    """Names of the operations that depend on gradients which have reached the network."""
    found: Set[str] = set()
    for op in ops:
        into_net = op.name.startswith("gradients") and scope in op.name.split("/")
        if into_net or any(tensor.op.name in found for tensor in op.inputs):
            found.add(op.name)
    return found


def net_bytes(ops: StepOps) -> int:
    """Bytes of a rank's copy of the network's weights."""
    return sum(variable_bytes(variable) for variable in ops.towers[0].backbone)


def host_uses(
    config: TrainConfig,
    weights: int,
    per_host: int = 1,
    hosts: int = 1,
    waiting: Optional[int] = None,
) -> Dict[str, int]:
    """{use: bytes} of a host's process without its ranks: buffered records, decoded batches, and
    TensorFlow itself. weights: bytes of the network's; waiting: buffered records, if the dataset is
    small."""
    images = config.batch_size // hosts // config.accumulate
    height, width = config.image_size
    own = RUNTIME_SHARE * weights * per_host
    waiting = config.buffer_size + READ_AHEAD if waiting is None else waiting
    return collections.OrderedDict(
        [
            ("buffered records", waiting * (RECORD_BYTES + RECORD_ROOM)),
            ("decoded batches", (batches_at_once() + 3) * images * height * width * 3),
            ("TensorFlow itself", IMPORT_BYTES + RUNTIME_BYTES + int(own)),
        ]
    )
