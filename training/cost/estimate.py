"""What one rank of a run needs, read from its graph before a step is run: bytes of memory by use.

Nothing here is a table of nets: the rank's own program is built as training builds it, for as many
ranks as there will be, and its tensors are followed by peak_memory.py. n images of a rank.
"""

import collections
import dataclasses

from checkpoint.writer import save_op
from data.pipeline.batches import READ_AHEAD, batches_at_once
from runtime.distributed.ranks import Ranks
from runtime.tf1 import tf
from runtime.variables import variable_bytes
from training.cost.communication import exchanges
from training.cost.peak_memory import live_tensors, needed, scope_of
from training.graph.optimizer import RULES
from training.graph.step import build_step
from training.plan import Plan

HEAD = "head: cosines and softmax"
RECORD_BYTES = 9000  # of a 112 x 112 JPEG record, as the published data sets hold them
RECORD_ROOM = 500  # what tf.data adds to each record that waits
# What a process holds above its variables and tensors once it trains, by benchmarks/estimate.py:
# sessions, threads, what malloc keeps; and for each byte of the net's weights its share of the
# graph and of kernels' scratch.
RUNTIME_BYTES, RUNTIME_SHARE = 350 << 20, 1.5
IMPORT_BYTES = 450 << 20  # of a process that has loaded its libraries, and done nothing yet

# device: {use: bytes} of one rank; host: of a host's process beside its ranks; exchanges: what a
# rank says to the others in a step, see training.cost.communication.
Estimate = collections.namedtuple("Estimate", "device host exchanges")


def estimate(config, identities, per_host=1, hosts=1):
    """What a run needs, of which nothing need exist: no data, no device, no other host.
    identities: of the head; per_host: devices of each host -> Estimate."""
    with tf.Graph().as_default():
        step = one_rank(config, identities, per_host, hosts)
        return Estimate(
            device_uses(step.towers[0], step, per_host * hosts),
            host_uses(config, net_bytes(step), per_host, hosts),
            exchanges(step, per_host * hosts),
        )


class _First(Ranks):
    """All ranks of a run, of which this process builds the first alone."""

    @property
    def local(self):
        return range(1)


def one_rank(config, identities, per_host=1, hosts=1, kind="CPU"):
    """The step of a run's first rank, in the current graph -> Step. Nothing of the run need exist:
    no data, no device, no other host. config: a MultiDeviceConfig, or what has its fields."""
    ranks = _First(
        per_host, tuple(f"host{i}:1" for i in range(hosts)) if hosts > 1 else (), 0, kind
    )
    parts = ranks.size * config.accumulate
    if config.batch_size % parts:
        raise ValueError(
            f"--batch_size {config.batch_size} cannot be divided among {ranks.size} devices"
            f"{' and --accumulate' * (config.accumulate > 1)}; pass a multiple of {parts}."
        )
    images = config.batch_size // parts
    images_nHWC = tf.placeholder(tf.uint8, [images] + list(config.image_size) + [3], "images")
    labels_n = tf.placeholder(tf.int64, [images], "labels")
    constant = dataclasses.replace(config, schedule="constant")
    return build_step(constant, plan_of(config, identities), [(images_nHWC, labels_n)], ranks=ranks)


def plan_of(config, identities):
    """A Plan without files, of one step."""
    known = dict(spec=config.net_spec(), identities=identities, total_steps=1, warmup_steps=0)
    known.update(peak_rate=1.0, frozen_steps=0, sets={})
    return Plan(**dict(dict.fromkeys(Plan._fields), **known))


def device_uses(tower, step, size=1):
    """{use: bytes} of one rank's device, once training runs. size: of all ranks."""
    uses = collections.OrderedDict(_state(tower))
    step_uses, most = _step_uses(tower, step)
    uses.update(step_uses)
    for use, fetches in (
        ("more when validating", [tower.plain_bD, tower.mirrored_bD]),
        ("more when saving", [save_op("", "", tf.global_variables(), size)]),
    ):
        more = max(0, live_tensors(fetches).peak - most)
        uses[use], most = more, most + more
    return collections.OrderedDict((use, size) for use, size in uses.items() if size)


def _state(tower):
    """What lives as long as the run does."""
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
    sums = [one for one in tf.local_variables() if not one.op.name.startswith("replica_")]
    uses["sums over a batch's parts"] = sum(variable_bytes(variable) for variable in sums)
    return uses


def step_peak(tower, step):
    """Bytes of tensors that a step of one rank holds at most, beside its variables."""
    return _fullest(tower, step).peak


def _fullest(tower, step):
    runs = [[tower.moved, step.scalars["inference_loss"]]] + [[op] for op in step.before[:1]]
    return max((live_tensors(run) for run in runs), key=lambda live: live.peak)


def _step_uses(tower, step):
    """({use: bytes} at the instant of a step that holds most, those bytes)."""
    most, scope = _fullest(tower, step), scope_of(tower)
    forward = {op.name for op in needed([step.scalars["inference_loss"]])}
    behind = _behind(needed([tower.moved] + step.before[:1]), scope)
    uses = collections.OrderedDict.fromkeys(("activations", HEAD, "gradients"), 0)
    for name, size in most.held.items():
        inside = scope in name.split("/")
        if inside and name in forward:
            uses["activations"] += size
        else:
            uses["gradients" if inside or name in behind else HEAD] += size
    uses[HEAD] += most.peak - sum(most.held.values())  # of its loops over blocks of rows
    return uses, most.peak


def _behind(ops, scope):
    """Names of the operations that are made of gradients which have come as far as the net."""
    found = set()
    for op in ops:
        into_net = op.name.startswith("gradients") and scope in op.name.split("/")
        if into_net or any(tensor.op.name in found for tensor in op.inputs):
            found.add(op.name)
    return found


def net_bytes(step):
    """Of a rank's copy of the net's weights."""
    return sum(variable_bytes(variable) for variable in step.towers[0].backbone)


def host_uses(config, weights, per_host=1, hosts=1, waiting=None):
    """{use: bytes} of a host's process beside its ranks: records that wait, decoded batches, and
    TensorFlow itself. weights: bytes of the net's; waiting: records, if the data set is small."""
    images = config.batch_size // hosts // config.accumulate
    height, width = config.image_size
    own = RUNTIME_SHARE * weights * per_host
    waiting = config.buffer_size + READ_AHEAD if waiting is None else waiting
    return collections.OrderedDict(
        [
            ("records that wait", waiting * (RECORD_BYTES + RECORD_ROOM)),
            ("decoded batches", (batches_at_once() + 3) * images * height * width * 3),
            ("TensorFlow itself", IMPORT_BYTES + RUNTIME_BYTES + int(own)),
        ]
    )
