"""Memory as training.cost.estimate predicts it, beside what training processes are seen to need.

Each case is a process of its own, which trains some steps on images made for it. Two things are
measured: the peak of the tensors of a step, by the allocations that TensorFlow's own trace lists,
and the peak of the process's resident memory above what it held with its libraries loaded.

    python benchmarks/estimate.py [--cases 1 2 5] [--steps 4]
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
from typing import Optional, Tuple  # noqa: E402

from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

IMAGES, SIDE = 64, 112
CASES = (
    dict(net_depth=18, batch_size=16, num_output=1000),
    dict(net_depth=18, batch_size=8, num_output=100000),
    dict(net_depth=18, batch_size=8, num_output=500000, sample_rate=0.1),
    dict(net_depth=18, batch_size=8, num_output=50000, optimizer="adamw", ema=0.99),
    dict(net_depth=50, batch_size=8, num_output=10000),
    dict(net_depth=50, batch_size=16, num_output=10000),
    dict(lineage="arcface_torch_mbf", batch_size=32, num_output=10000),
    dict(net_depth=18, batch_size=16, num_output=10000, accumulate=2),
    dict(net_depth=18, batch_size=16, num_output=50000, num_devices=2),
    dict(net_depth=18, batch_size=16, num_output=1000, width=0.5),
    dict(net_depth=18, batch_size=16, num_output=10000, optimizer="adamw", accumulate=2),
    dict(net_depth=18, batch_size=16, num_output=1000, recompute=True),
)


@dataclasses.dataclass(frozen=True)
class EstimateConfig:
    """Which cases are measured."""

    cases: Tuple[int, ...] = flag((), "numbers of the cases, from 1 (default: all)", low=1)
    steps: int = flag(4, "steps of each training", low=2)
    inside: Optional[str] = flag(None, "a case as JSON: measure it in this process, print JSON")


def main(argv=None):
    config = parse_flags(EstimateConfig, argv, __doc__)
    if config.inside:
        print(json.dumps(_measured(json.loads(config.inside), config.steps)))
        return
    numbers = config.cases or range(1, len(CASES) + 1)
    unknown = [number for number in numbers if number > len(CASES)]
    if unknown:
        raise ValueError(f"--cases {unknown[0]}: there are {len(CASES)} cases; pass one of them.")
    print("MiB: a step's tensors, then the process above its libraries; predicted, measured, ratio")
    for number in numbers:
        case = CASES[number - 1]
        predicted, measured = _predicted(case), _in_a_process(case, config.steps)
        words = " ".join(f"{name}={value}" for name, value in case.items())
        columns = [f"{number}"]
        for what in ("tensors", "process"):
            ratio = predicted[what] / measured[what]
            columns += [f"{predicted[what] >> 20:6d} {measured[what] >> 20:6d} {ratio:5.2f}"]
        print("   ".join(columns + [words]), flush=True)


def config_of(case, data="-", output="-"):
    """A case as the configuration of a run of some steps."""
    from training.config import MultiDeviceConfig

    said = dict(tfrecords_file_path=data, output_path=output, buffer_size=256, eval_batch_size=16)
    return MultiDeviceConfig(**dict(said, schedule="constant", show_info_interval="1", **case))


def _predicted(case):
    """{tensors: bytes at the peak of a step, process: bytes above its libraries}, of all ranks."""
    from runtime.tf1 import tf
    from training.cost.estimate import (
        IMPORT_BYTES,
        device_uses,
        host_uses,
        net_bytes,
        one_rank,
        step_peak,
    )

    config = config_of(case)
    ranks = config.num_devices or 1
    with tf.Graph().as_default():
        step = one_rank(config, config.num_output, ranks)
        rank, peak = (
            sum(device_uses(step.towers[0], step).values()),
            step_peak(step.towers[0], step),
        )
        host = host_uses(config, net_bytes(step), ranks, waiting=IMAGES)
    host = sum(host.values())
    return {"tensors": ranks * peak, "process": ranks * rank + host - IMPORT_BYTES}


def _in_a_process(case, steps):
    said = [sys.executable, os.path.abspath(__file__), "--inside", json.dumps(case)]
    done = subprocess.run(
        said + ["--steps", str(steps)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    if done.returncode:
        raise RuntimeError(f"case {case} failed:\n{done.stderr.decode()[-2000:]}")
    return json.loads(done.stdout.decode().strip().splitlines()[-1])


def _measured(case, steps):
    """As _predicted, of a run in this process."""
    from runtime.distributed.ranks import Ranks
    from training.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder:
        data = _data_set(folder)
        config = config_of(case, data, os.path.join(folder, "run"))
        config = dataclasses.replace(config, epoch=f"{steps}step")
        ranks = Ranks(config.num_devices or 1)
        held = _status("VmRSS")
        with Trainer(config, ranks) as trainer:
            code = trainer.run()
        assert code == 0, code
        process = _status("VmHWM") - held
    return {"process": process, "tensors": max(traced_peaks(config, ranks))}


def traced_peaks(config, ranks):
    """Bytes that were allocated at most at once in each run of a step, by TensorFlow's trace."""
    import numpy as np

    from runtime.distributed.ranks import prepared
    from runtime.tf1 import tf
    from training.graph.settings import step_settings
    from training.graph.step import build_step

    images = config.batch_size // ranks.size // config.accumulate
    pixels = np.random.RandomState(0).randint(0, 256, (images, SIDE, SIDE, 3)).astype(np.uint8)
    labels = np.arange(images) % config.num_output
    with tf.Graph().as_default():
        fed = [
            (tf.placeholder(tf.uint8, pixels.shape), tf.placeholder(tf.int64, [images]))
            for _ in ranks.local
        ]
        feed = {one: value for pair in fed for one, value in zip(pair, (pixels, labels))}
        step = build_step(step_settings(config, config.num_output), fed, ranks)
        runs = [[op] for op in step.accumulate] + [[step.train, step.scalars["inference_loss"]]]
        with tf.Session(config=prepared(tf.ConfigProto(), ranks)) as session:
            session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
            for fetches in runs:
                session.run(fetches, feed)
            return [_traced_peak(session, fetches, feed) for fetches in runs]


def _traced_peak(session, fetches, feed):
    from runtime.tf1 import tf

    options, found = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), tf.RunMetadata()
    session.run(fetches, feed, options=options, run_metadata=found)
    changes = [
        (record.alloc_micros, record.alloc_bytes)
        for device in found.step_stats.dev_stats
        for node in device.node_stats
        for memory in node.memory
        for record in memory.allocation_records
    ]
    now = peak = 0
    for _, change in sorted(changes):  # at one instant what is freed comes first
        now += change
        peak = max(peak, now)
    return peak


def _status(key):
    """Bytes that Linux says of this process: VmRSS held now, VmHWM at most so far."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def _data_set(folder):
    """A directory with a shard of JPEGs of noise."""
    import cv2
    import numpy as np

    from data.formats.tfrecord import example_bytes
    from runtime.tf1 import tf

    noise = np.random.RandomState(0)
    with tf.io.TFRecordWriter(os.path.join(folder, "train-00000.tfrecords")) as writer:
        for number in range(IMAGES):
            image = noise.randint(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
            writer.write(example_bytes(number, cv2.imencode(".jpg", image)[1].tobytes()))
    return folder


if __name__ == "__main__":
    run(main)
