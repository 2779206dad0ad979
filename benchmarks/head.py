"""Seconds and memory of one step of the class centres: loss, gradients, momentum and decay.

Prints a table: this head at each --identities x --sample_rate, and a PyTorch Partial FC of the
published arithmetic beside it (arXiv:2203.15565: sampled softmax, momentum and decay of all K).
Every case runs in a process of its own. Memory is what that process's peak grew by over what it
held with its libraries loaded, so weights + momentum + what the step needs.

    python benchmarks/head.py --identities 100000 1000000 --sample_rate 1.0 0.1
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

from runtime.flags import flag, parse_flags  # noqa: E402
from runtime.script import run  # noqa: E402

RATE, MOMENTUM, DECAY, SCALE, MARGIN = 0.1, 0.9, 5e-4, 64.0, 0.5


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """What is measured."""

    identities: Tuple[int, ...] = flag(
        (100_000, 1_000_000), "class counts, one for each case", low=2
    )
    sample_rate: Tuple[float, ...] = flag(
        (1.0, 0.1), "share read in each case", above=0.0, high=1.0
    )
    batch_size: int = flag(128, "images a step", low=1)
    embedding_size: int = flag(512, "numbers in an embedding", low=1)
    steps: int = flag(7, "steps timed, after three that are not", low=1)
    threads: int = flag(2, "processor cores used", low=1)
    peer: bool = flag(True, "measure the PyTorch Partial FC too (needs torch)")
    case: str = flag("", "ours or peer: measure the first case in this process and print JSON")


def main(argv=None):
    config = parse_flags(HeadConfig, argv)
    if len(config.identities) != len(config.sample_rate):
        raise ValueError(
            f"--identities names {len(config.identities)} cases and --sample_rate "
            f"{len(config.sample_rate)}; pass as many of the one as of the other."
        )
    if config.case:
        print(json.dumps({"ours": _ours, "peer": _peer}[config.case](config)))
        return
    columns = ("identities", "rate", "", "best s", "median", "GiB", "/ its state")
    print("{:>11} {:>5} {:10} {:>7} {:>7} {:>6} {:>11}".format(*columns))
    for identities, sample_rate in zip(config.identities, config.sample_rate):
        ours = _measure(config, identities, sample_rate, "ours")
        _show(config, identities, sample_rate, ours, "")
        if config.peer:
            peer = _measure(config, identities, sample_rate, "peer")
            ratio = f"   time here / there {ours['best'] / peer['best']:.2f}"
            _show(config, identities, sample_rate, peer, ratio)


def _show(config, identities, sample_rate, measured, note):
    gib, state = measured["gib"], 2 * 4 * identities * config.embedding_size / 2**30
    print(
        f"{identities:>11} {sample_rate:>5} {measured['name']:10} {measured['best']:>7.3f} "
        f"{measured['seconds']:>7.3f} {gib:>6.2f} {gib / state:>11.2f}{note}",
        flush=True,
    )


def _measure(config, identities, sample_rate, case):
    """The result of one case, measured in a process of its own."""
    said = [sys.executable, os.path.abspath(__file__), "--case", case]
    for name in ("batch_size", "embedding_size", "steps", "threads"):
        said += [f"--{name}", str(getattr(config, name))]
    said += ["--identities", str(identities), "--sample_rate", str(sample_rate)]
    done = subprocess.run(said, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if done.returncode:
        raise RuntimeError(f"{' '.join(said)} failed:\n{done.stderr.decode()[-2000:]}")
    return json.loads(done.stdout.decode().strip().splitlines()[-1])


def _timed(step, config, name, held):
    for _ in range(3):
        step()
    seconds = []
    for _ in range(config.steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    peak = _status("VmHWM") - held
    best, median = min(seconds), statistics.median(seconds)
    return {"name": name, "best": best, "seconds": median, "gib": peak / 2**30}


def _status(key):
    """Bytes that Linux says of this process: VmRSS held now, VmHWM at most so far."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def _ours(config):
    from losses.class_centres import class_centres_loss
    from runtime.tf1 import VERSION, tf
    from training.optimizer import apply_gradients

    tf.set_random_seed(1)
    embeddings_ND = tf.get_variable("embeddings", [config.batch_size, config.embedding_size])
    labels_N = tf.random_uniform([config.batch_size], 0, config.identities[0], tf.int64)
    head = class_centres_loss(
        embeddings_ND, labels_N, config.identities[0], sample_rate=config.sample_rate[0]
    )
    slope_ND, gradient = tf.gradients(head.loss, [embeddings_ND, head.centres])
    move = apply_gradients([(gradient, head.centres)], RATE, momentum=MOMENTUM, weight_decay=DECAY)
    with tf.control_dependencies([move]):
        count = tf.assign_add(tf.train.get_or_create_global_step(), 1)
    fetched = [head.loss, head.accuracy, tf.reduce_sum(slope_ND), count]
    session = tf.Session(
        config=tf.ConfigProto(
            intra_op_parallelism_threads=config.threads, inter_op_parallelism_threads=config.threads
        )
    )
    with session:
        session.run(tf.constant(0))
        held = _status("VmRSS")
        session.run(tf.global_variables_initializer())
        return _timed(lambda: session.run(fetched), config, "TF " + VERSION, held)


def _peer(config):
    """Partial FC as published: a sampled softmax whose gradient is dense in the [K, D] weights."""
    import torch

    torch.manual_seed(1)
    torch.set_num_threads(config.threads)
    identities, batch = config.identities[0], config.batch_size
    count = int(round(config.sample_rate[0] * identities))
    embeddings_ND = torch.randn(batch, config.embedding_size, requires_grad=True)
    torch.randn(8, 8).matmul(torch.randn(8, 8))
    held = _status("VmRSS")
    weights_KD = torch.nn.Parameter(torch.empty(identities, config.embedding_size).normal_(0, 0.01))
    optimizer = torch.optim.SGD([weights_KD], lr=RATE, momentum=MOMENTUM, weight_decay=DECAY)

    def step():
        labels_N = torch.randint(identities, (batch,))
        if count < identities:
            score_K = torch.rand(identities)
            score_K[labels_N] = 2.0  # the batch's own always, the others by chance
            rows_R = torch.topk(score_K, count).indices.sort().values
            labels_N = torch.searchsorted(rows_R, labels_N)
            chosen_RD = weights_KD[rows_R]
        else:
            chosen_RD = weights_KD
        normalize = torch.nn.functional.normalize
        logits_NR = torch.nn.functional.linear(normalize(embeddings_ND), normalize(chosen_RD))
        logits_NR = logits_NR.clamp(-1, 1)
        with torch.no_grad():
            at = torch.arange(batch), labels_N
            logits_NR[at] = torch.cos(logits_NR[at].arccos() + MARGIN)
        loss = torch.nn.functional.cross_entropy(logits_NR * SCALE, labels_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return _timed(step, config, "PyTorch", held)


if __name__ == "__main__":
    run(main)
