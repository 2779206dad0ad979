"""What ranks cost: two devices against one at the same batch, and gradients on the wire.

Prints, each as a ratio within this run: a step of --net_depth on two virtual CPU devices over one
on one, taking turns; and, between two processes on this machine, the sum of that net's gradients in
buckets of 1, 4 and 16 MiB against one call a variable, and its share of a step of the two.

    python benchmarks/ranks.py --net_depth 18 --batch_size 32
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from typing import Tuple  # noqa: E402

import numpy as np  # noqa: E402

from runtime.cli import run  # noqa: E402
from runtime.distributed.collectives import Collectives, in_buckets  # noqa: E402
from runtime.distributed.hosts import free_addresses  # noqa: E402
from runtime.distributed.ranks import Ranks, open_target, prepared  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402
from runtime.session import session_config  # noqa: E402
from runtime.tf1 import TF2, tf  # noqa: E402
from training.config import MultiDeviceConfig  # noqa: E402
from training.graph.settings import step_settings  # noqa: E402
from training.graph.step import build_step  # noqa: E402

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class RanksConfig:
    """What is measured."""

    net_depth: int = flag(18, "depth of the net", low=18)
    batch_size: int = flag(32, "images a step, of all ranks together", low=2)
    identities: int = flag(10_000, "classes of the head", low=2)
    steps: int = flag(5, "steps timed of each case, after two that are not", low=1)
    worker_hosts: Tuple[str, ...] = flag((), "of a child: its group's addresses")
    task_index: int = flag(-1, "of a child: which it is", low=-1)


def main(argv=None):
    config = parse_flags(RanksConfig, argv, __doc__)
    if config.task_index >= 0:
        return print(json.dumps(_on_the_wire(config)))
    one, two = _in_turns(config)
    print(f"r{config.net_depth}, batch {config.batch_size}, {config.steps} steps each, in turns:")
    print(f"  1 device             {one:8.3f} s a step")
    print(f"  2 virtual devices    {two:8.3f} s a step   {two / one:.2f} x")
    found = _two_processes(config)
    naive = found["one call a variable"]
    print(f"gradients between 2 processes on this machine, {found.pop('MiB'):.0f} MiB:")
    step = found.pop("step")
    for name, seconds in found.items():
        print(f"  {name:21} {seconds:8.3f} s   {naive / seconds:5.2f} x as fast")
    share = found["buckets of 4 MiB"] / step
    print(
        f"  a step of the two     {step:8.3f} s, of which the 4 MiB buckets alone are {share:.0%}"
    )


def _train_config(config):
    words = dict(net_depth=config.net_depth, batch_size=config.batch_size, eval_batch_size=2)
    return MultiDeviceConfig(tfrecords_file_path="none", **words)


def _step(config, ranks):
    """The Step of this process's ranks on images of noise."""
    train = _train_config(config)
    settings = step_settings(train, config.identities)
    noise = np.random.RandomState(0)
    shares = []
    for _ in ranks.local:
        count = config.batch_size // ranks.size
        images = noise.randint(0, 256, (count, 112, 112, 3)).astype(np.uint8)
        labels = noise.randint(0, config.identities, count).astype(np.int64)
        shares.append((tf.constant(images), tf.constant(labels)))
    return build_step(settings, shares, ranks)


def _in_turns(config):
    """Median seconds of a step on one device and on two, one step of the one after one of the
    other, so that whoever else uses the machine disturbs both."""
    sessions = []
    for count in (1, 2):
        ranks = Ranks(per_host=count)
        with tf.Graph().as_default():
            step = _step(config, ranks)
            session = tf.Session(config=prepared(session_config("cpu"), ranks))
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            session.run(step.replicate)
            sessions.append((session, step.train))
    taken = [[], []]
    for _ in range(config.steps + 2):
        for kept, (session, train) in zip(taken, sessions):
            kept.append(_timed(session, train))
    return [statistics.median(kept[2:]) for kept in taken]


def _timed(session, op):
    begun = time.perf_counter()
    session.run(op)
    return time.perf_counter() - begun


def _two_processes(config):
    addresses = ",".join(free_addresses(2))
    words = [sys.executable, os.path.abspath(__file__), "--worker_hosts", addresses]
    for name in ("net_depth", "batch_size", "identities", "steps"):
        words += [f"--{name}", str(getattr(config, name))]
    children = [
        subprocess.Popen(
            words + ["--task_index", str(index)], stdout=subprocess.PIPE, universal_newlines=True
        )
        for index in range(2)
    ]
    said = [child.communicate()[0] for child in children]
    if any(child.returncode for child in children):
        raise ValueError("a process of the two failed; see what it said above.")
    return json.loads(said[0])


def _on_the_wire(config):
    """Median seconds of the ways to sum the net's gradients, and of a whole step."""
    ranks = Ranks(hosts=config.worker_hosts, host=config.task_index)
    proto = prepared(session_config("cpu"), ranks)
    with tf.Graph().as_default(), tf.device(ranks.host_device):
        step = _step(config, ranks)
        talk = Collectives(ranks.host, ranks.size)
        talk.calls = list(step.calls)  # the keys go on after the step's
        weights = [variable for variable in step.backbone if variable.trainable]
        ways = {"one call a variable": _sums(talk, weights, None)}
        for size in (1, 4, 16):
            ways[f"buckets of {size} MiB"] = _sums(talk, weights, size * MIB)
        if TF2:  # 1.15's collectives do not add in it
            ways["of 4 MiB in bf16"] = _sums(talk, weights, 4 * MIB, tf.bfloat16)
        ways["4 MiB, never packed"] = _whole(talk, weights)
        ways["step"] = step.train
        with tf.Session(open_target(proto, ranks), config=proto) as session:
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            session.run(step.replicate)
            found = {name: [] for name in ways}
            for _ in range(config.steps + 2):
                for name, op in ways.items():
                    found[name].append(_timed(session, op))
            step.agreement.all_agree(session, True)
    found = {name: statistics.median(kept[2:]) for name, kept in found.items()}
    return dict(found, MiB=sum(v.shape.num_elements() * 4 for v in weights) / MIB)


def _sums(talk, weights, bucket_bytes, wire=None):
    values = [variable.read_value() for variable in weights]
    if bucket_bytes is None:
        return tf.group(*[talk.sum(value) for value in values])
    return tf.group(*in_buckets(values, talk.sum, bucket_bytes, wire))


def _whole(talk, weights):
    """As many bytes in tensors of 4 MiB that come as they are: buckets cannot be faster."""
    count = sum(variable.shape.num_elements() for variable in weights)
    made = tf.placeholder_with_default(1.0, [])  # so that no tensor is a folded constant
    sizes = [MIB] * (count // MIB) + [max(1, count % MIB)]
    return tf.group(*[talk.sum(tf.fill([size], made)) for size in sizes])


if __name__ == "__main__":
    run(main)
