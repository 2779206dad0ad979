"""A training step, beside the same step in PyTorch, in one run on the same cores.

python benchmarks/step.py [--net_depth 50] [--batch_size 16] [--steps 6] [--precision fp32]

The net is arcface_torch's IR net at 112 x 112 with ArcFace over 10,000 identities and SGD with
momentum and decay; images lie in memory, so that nothing but the step is timed. Prints images a
second of each, and the ratio. Without PyTorch it prints ours alone.
"""

import os
import sys

if __package__ in (None, ""):  # run as a file: imports start at the repository's root
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses  # noqa: E402
import multiprocessing  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402

import numpy as np  # noqa: E402

from runtime.flags import flag, parse_flags  # noqa: E402
from runtime.script import run  # noqa: E402

IDENTITIES, EMBEDDING, SIDE = 10000, 512, 112
RATE, MOMENTUM, DECAY, SCALE, MARGIN = 0.01, 0.9, 5e-4, 64.0, 0.5


@dataclasses.dataclass(frozen=True)
class StepConfig:
    net_depth: int = flag(50, "depth of the IR net", choices=(18, 34, 50, 100))
    batch_size: int = flag(16, "images a step", low=2)
    steps: int = flag(6, "steps that are timed", low=1)
    precision: str = flag("fp32", "of ours:", choices=("fp32", "bf16", "fp16"))


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


def ours(config, answer):
    """The step as training builds it."""
    from losses.class_centres import class_centres_loss
    from nets.build import embeddings
    from nets.lineages import NetSpec
    from runtime.tf1 import VERSION, tf
    from training.gradients import backbone_and_head, bound
    from training.optimizer import apply_gradients
    from training.step import COMPUTE

    images, labels = batch(config.batch_size)
    with tf.Graph().as_default(), tf.Session() as session:
        spec = NetSpec("arcface_torch", config.net_depth, embedding_size=EMBEDDING)
        embedded_ND = embeddings(
            tf.Variable(images, trainable=False).value(),
            spec,
            training=True,
            compute_dtype=COMPUTE[config.precision],
        )
        head = class_centres_loss(embedded_ND, tf.constant(labels), IDENTITIES)
        pairs = bound(*backbone_and_head(head.loss, embedded_ND, tf.trainable_variables())).pairs
        moved = apply_gradients(pairs, RATE, momentum=MOMENTUM, weight_decay=DECAY)
        with tf.control_dependencies([moved] + tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            train = tf.no_op()
        session.run(tf.global_variables_initializer())
        answer.put((f"TensorFlow {VERSION}", timed(lambda: session.run(train), config.steps)))


def peer(config, answer):
    """PyTorch's iresnet with a normalised head, ArcFace in the published arithmetic, and SGD."""
    import torch

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

    answer.put((f"PyTorch {torch.__version__}", timed(step, config.steps)))


def in_a_process(work, config):
    """(name, seconds) of `work`, which has the machine's cores and memory to itself."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=work, args=(config, answer))
    process.start()
    found = answer.get()
    process.join()
    return found


def main(argv=None):
    config = parse_flags(StepConfig, argv, __doc__)
    print(f"r{config.net_depth}, batch {config.batch_size}, {os.cpu_count()} cores")
    name, seconds = in_a_process(ours, config)
    rate = config.batch_size / seconds
    print(f"{name}, {config.precision}: {seconds:.3f} s, {rate:.2f} images/s")
    try:
        import torch  # noqa: F401
    except ImportError:
        print("PyTorch is not installed here, so there is nothing to compare with.")
        return
    name, peers = in_a_process(peer, config)
    print(f"{name}, fp32: {peers:.3f} s, {config.batch_size / peers:.2f} images/s")
    print(f"ratio: {peers / seconds:.2f}")


if __name__ == "__main__":
    run(main)
