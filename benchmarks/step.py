"""A training step beside the same step elsewhere, in one run on the same cores.

python benchmarks/step.py [--against original|pytorch|nothing|parts] [--net_depth 50]
    [--batch_size 16] [--steps 6] [--rounds 1] [--precision fp32] [--peer_python PATH]

At 112 x 112, with ArcFace over 10,000 identities and SGD with momentum and decay; images lie in
memory, so that nothing but the step is timed. pytorch: arcface_torch's iresnet, written in PyTorch.
original: InsightFace_TF's net in its own operations (benchmarks/original_step.py), on the same
TensorFlow or, with --peer_python .venv-tf1/bin/python, on the one that it was written for. Ours is
each time that same net. Each has a process of its own, in turn, and the ratio is of their median
steps. parts: how a traced step divides among net, head and the rest.
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import collections  # noqa: E402
import dataclasses  # noqa: E402
import json  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402

from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

IDENTITIES, EMBEDDING, SIDE = 10000, 512, 112
PARTS = ("ours", "original", "pytorch", "parts")
RATE, MOMENTUM, DECAY, SCALE, MARGIN = 0.01, 0.9, 5e-4, 64.0, 0.5


@dataclasses.dataclass(frozen=True)
class StepConfig:
    net_depth: int = flag(50, "depth of the IR net", choices=(18, 34, 50, 100))
    batch_size: int = flag(16, "images a step", low=2)
    steps: int = flag(6, "steps that are timed", low=1)
    rounds: int = flag(1, "processes of each side, in turn", low=1)
    precision: str = flag("fp32", "of ours:", choices=("fp32", "bf16", "fp16"))
    against: str = flag("pytorch", "the peer:", choices=("pytorch", "original", "nothing", "parts"))
    peer_python: str = flag("", "the Python that runs the original's graph; this one if empty")
    part: str = flag("all", "one side, in this process", choices=("all",) + PARTS)


def batch(size):
    noise = np.random.RandomState(0)
    images = noise.randint(0, 256, (size, SIDE, SIDE, 3)).astype(np.uint8)
    return images, noise.randint(0, IDENTITIES, size).astype(np.int64)


def timed(step, steps):
    """Seconds of a step: the median, after two that warm up."""
    seconds = []
    for _ in range(steps + 2):
        begun = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds[2:])


def ours(config):
    """(name, seconds) of the step as training builds and makes it."""
    from runtime.tf1 import VERSION, tf
    from training.loop import make_step

    with tf.Graph().as_default(), tf.Session() as session:
        step = built(config, tf)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        wanted = (
            "inference_loss",
            "nonfinite_names",
            "learning_rate",
        )  # each step's, as Guard has it
        seconds = timed(lambda: make_step(session, step, wanted), config.steps)
    return f"TensorFlow {VERSION}, {config.precision}", seconds


def built(config, tf):
    """training.graph.step.StepOps of a run on images that lie in memory."""
    from runtime.flags import build
    from training.config import TrainConfig
    from training.graph.settings import step_settings
    from training.graph.step import build_step

    images, labels = batch(config.batch_size)
    training = build(
        TrainConfig,
        dict(
            tfrecords_file_path="",
            lineage="insightface_tf" if config.against == "original" else "arcface_torch",
            net_depth=config.net_depth,
            embedding_size=EMBEDDING,
            batch_size=config.batch_size,
            precision=config.precision,
            lr=RATE,
            momentum=MOMENTUM,
            weight_decay=DECAY,
            schedule="constant",
            eval_batch_size=1,
        ),
    )
    images = tf.Variable(images, trainable=False).value()
    return build_step(step_settings(training, IDENTITIES), [(images, tf.constant(labels))])


def parts(config):
    """(name, {part: share of the time that a step's operations take}), from a trace of each."""
    from runtime.tf1 import VERSION, tf

    with tf.Graph().as_default(), tf.Session() as session:
        step = built(config, tf)
        session.run([tf.global_variables_initializer(), tf.local_variables_initializer()])
        for _ in range(2):
            session.run(step.train)
        times = collections.Counter()
        for _ in range(config.steps):
            traced = tf.RunMetadata()
            options = tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE)
            session.run(step.train, options=options, run_metadata=traced)
            for device in traced.step_stats.dev_stats:
                for node in device.node_stats:
                    times[part_of(node.node_name)] += node.op_end_rel_micros
    total = sum(times.values())
    return f"TensorFlow {VERSION}", {part: times[part] / total for part in sorted(times)}


def part_of(name):
    """Whose an operation is, by its name: the net's lie in its scope, and so do their gradients;
    the update is a branch of a condition, where the class centres' part is a loop over blocks."""
    if "resnet_v1_" in name and "Momentum" not in name:
        return "net"
    if re.match(r"cond(_\d+)?/", name) and "while" not in name:
        return "update"
    if name.startswith(("L2Loss", "Assign")):
        return "update"  # the look at the gradients before it, and the moving statistics
    return "head and others"


def original(config):
    """(name, seconds) of the same step in InsightFace_TF's own operations."""
    from benchmarks.original_step import train_op
    from runtime.tf1 import VERSION, tf

    images, labels = batch(config.batch_size)
    with tf.Graph().as_default(), tf.Session() as session:
        train = train_op(
            tf.Variable(images, trainable=False).value(),
            tf.constant(labels),
            config.net_depth,
            EMBEDDING,
            IDENTITIES,
            RATE,
            MOMENTUM,
            DECAY,
        )
        session.run(tf.global_variables_initializer())
        seconds = timed(lambda: session.run(train), config.steps)
    return f"the original's graph on TensorFlow {VERSION}, fp32", seconds


def pytorch(config):
    """(name, seconds) of PyTorch's iresnet with a normalised head, ArcFace in the published
    arithmetic, and SGD."""
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            "PyTorch is not installed here; pass --against original, or nothing."
        ) from error
    from nets.lineages import LINEAGES
    from tests.nets.torch_nets import IResNet

    images, labels = [torch.from_numpy(array) for array in batch(config.batch_size)]
    images = images.permute(0, 3, 1, 2).float().contiguous()
    units = LINEAGES["arcface_torch"].units[config.net_depth]
    net = IResNet(units, (64, 128, 256, 512), (SIDE // 16) ** 2, EMBEDDING).train()
    centres = torch.nn.Parameter(torch.randn(IDENTITIES, EMBEDDING) * 0.01)
    weights = list(net.parameters()) + [centres]
    optimizer = torch.optim.SGD(weights, RATE, momentum=MOMENTUM, weight_decay=DECAY)

    def step():
        normalise = torch.nn.functional.normalize
        cosine_NK = normalise(net(images)) @ normalise(centres).t()
        true_N = cosine_NK[torch.arange(len(labels)), labels].clamp(-1 + 1e-7, 1 - 1e-7)
        bent_N = torch.cos(torch.acos(true_N) + MARGIN)
        logits_NK = cosine_NK.scatter(1, labels[:, None], bent_N[:, None]) * SCALE
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits_NK, labels).backward()
        optimizer.step()

    return f"PyTorch {torch.__version__}, fp32", timed(step, config.steps)


def alone(part, config):
    """What that part found in a process that has the machine's cores and memory to itself."""
    python = config.peer_python if part == "original" and config.peer_python else sys.executable
    words = [python, os.path.abspath(__file__), "--part", part]
    for name in ("net_depth", "batch_size", "steps", "precision", "against"):
        words += [f"--{name}", str(getattr(config, name))]
    done = subprocess.run(words, stdout=subprocess.PIPE)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    return json.loads(done.stdout.splitlines()[-1])


def timed_alone(part, config):
    """Seconds of a step of that part, which are told."""
    name, seconds = alone(part, config)
    print(f"{name}: {seconds:.3f} s, {config.batch_size / seconds:.2f} images/s", flush=True)
    return seconds


def main(argv=None):
    config = parse_flags(StepConfig, argv, __doc__)
    if config.part != "all":
        print(json.dumps(MEASURES[config.part](config)))
        return
    if config.peer_python and not shutil.which(config.peer_python):
        raise ValueError(f"--peer_python {config.peer_python} cannot be run; name a Python.")
    print(f"r{config.net_depth}, batch {config.batch_size}, {os.cpu_count()} cores", flush=True)
    if config.against == "parts":
        name, shares = alone("parts", config)
        print(f"{name}: " + ", ".join(f"{part} {share:.1%}" for part, share in shares.items()))
        return
    sides = ["ours"] if config.against == "nothing" else ["ours", config.against]
    rounds = [[timed_alone(side, config) for side in sides] for _ in range(config.rounds)]
    if len(sides) > 1:
        ratios = [peer / own for own, peer in rounds]
        said = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"ratio: {statistics.median(ratios):.2f} (of {said})")


MEASURES = {"ours": ours, "original": original, "pytorch": pytorch, "parts": parts}

if __name__ == "__main__":
    run(main)
