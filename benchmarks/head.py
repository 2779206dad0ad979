r"""Seconds and memory of one step of the class centres: loss, gradients, momentum and decay.

Prints a table: this head at each --identities x --sample_rate and on each of --devices, where it is
sliced over that many virtual CPU devices; and a PyTorch Partial FC of the published arithmetic
beside it (arXiv:2203.15565: sampled softmax, momentum and decay of all K).
Every case runs in a process of its own. Memory is what that process's peak grew by over what it
held with its libraries loaded, so weights + momentum + what the step needs. With --alternate all
cases are held at once and take turns, a step each, so that what else the machine does falls on all
of them alike; "to the first" is the median over the rounds of a case's time to the first case's.

    python benchmarks/head.py --identities 100000 1000000 --sample_rate 1.0 0.1
    python benchmarks/head.py --no_peer --alternate --devices 1 2 --identities 1000000 \
        --sample_rate 0.1
    python benchmarks/head.py --no_peer --alternate --identities 200000 2000000 \
        --sample_rate 0.25 0.025
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

from runtime.cli import run  # noqa: E402
from runtime.flags import flag, parse_flags  # noqa: E402

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
    devices: Tuple[int, ...] = flag(
        (1,), "virtual CPU devices that share the centres, in each case", low=1, high=16
    )
    steps: int = flag(7, "steps timed, after three that are not", low=1)
    threads: int = flag(2, "processor cores used", low=1)
    peer: bool = flag(True, "measure the PyTorch Partial FC too (needs torch)")
    alternate: bool = flag(False, "let all cases take turns, a step each")
    case: str = flag("", "ours or peer: measure the first case in this process and print JSON")


def main(argv=None):
    config = parse_flags(HeadConfig, argv)
    if len(config.identities) != len(config.sample_rate):
        raise ValueError(
            f"--identities names {len(config.identities)} cases and --sample_rate "
            f"{len(config.sample_rate)}; pass as many of the one as of the other."
        )
    if config.case:
        _serve(*{"ours": _ours, "peer": _peer}[config.case](config), config)
        return
    columns = ("identities", "rate", "", "best s", "median", "GiB", "/ its state", "to the first")
    print("{:>11} {:>5} {:24} {:>7} {:>7} {:>6} {:>11} {:>12}".format(*columns))
    cases = [
        _Case(config, identities, sample_rate, devices, case)
        for identities, sample_rate in zip(config.identities, config.sample_rate)
        for case in ("ours", "peer")[: 1 + config.peer]
        for devices in (config.devices if case == "ours" else (1,))
    ]
    if config.alternate:
        _measure(cases, config.steps)
    for case in cases:
        if not config.alternate:
            _measure([case], config.steps)
        _show(config, case, cases[0])


class _Case:
    """A process that measures one case: it makes a step whenever it is told to."""

    def __init__(self, config, identities, sample_rate, devices, case):
        self.identities, self.sample_rate = identities, sample_rate
        self.said = [sys.executable, os.path.abspath(__file__), "--case", case]
        for name in ("batch_size", "embedding_size", "threads"):
            self.said += [f"--{name}", str(getattr(config, name))]
        self.said += ["--identities", str(identities), "--sample_rate", str(sample_rate)]
        self.said += ["--devices", str(devices)]
        self.seconds = []

    def start(self):
        self.process = subprocess.Popen(
            self.said, stdin=subprocess.PIPE, stdout=subprocess.PIPE, universal_newlines=True
        )

    def step(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.said)} failed.")
        self.seconds.append(float(line))

    def end(self):
        self.found = json.loads(self.process.communicate()[0])


def _measure(cases, steps):
    """`steps` steps of each case, in turns, after three that do not count."""
    for case in cases:
        case.start()
    for _ in range(3 + steps):
        for case in cases:
            case.step()
    for case in cases:
        case.seconds = case.seconds[3:]
        case.end()


def _show(config, case, first):
    gib, state = case.found["gib"], 2 * 4 * case.identities * config.embedding_size / 2**30
    ratio = statistics.median(one / two for one, two in zip(case.seconds, first.seconds))
    print(
        f"{case.identities:>11} {case.sample_rate:>5} {case.found['name']:24} "
        f"{min(case.seconds):>7.3f} {statistics.median(case.seconds):>7.3f} {gib:>6.2f} "
        f"{gib / state:>11.2f} {ratio:>12.2f}",
        flush=True,
    )


def _serve(step, name, held, config):
    """A step for each line of input, then JSON; without input, config.steps of them."""
    told = sys.stdin if not sys.stdin.isatty() else ()
    done = 0
    for _ in told:
        start = time.perf_counter()
        step()
        done += 1
        print(time.perf_counter() - start, flush=True)
    for _ in range(0 if done else config.steps):
        step()
    print(json.dumps({"name": name, "gib": (_status("VmHWM") - held) / 2**30}))


def _status(key):
    """Bytes that Linux says of this process: VmRSS held now, VmHWM at most so far."""
    with open("/proc/self/status", encoding="utf-8") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def _ours(config):
    """(what makes a step, its name, bytes held before)"""
    from runtime.distributed.ranks import Ranks, prepared
    from runtime.tf1 import VERSION, tf

    tf.set_random_seed(1)
    ranks = Ranks(per_host=config.devices[0])
    embeddings_ND = tf.get_variable("embeddings", [config.batch_size, config.embedding_size])
    labels_N = tf.random_uniform([config.batch_size], 0, config.identities[0], tf.int64)
    towers = []
    for rank in ranks.local:
        with tf.variable_scope(ranks.scope(rank)), tf.device(ranks.device(rank)):
            towers.append(_tower(config, ranks, rank, embeddings_ND, labels_N))
    with tf.control_dependencies([move for _, move in towers]):
        count = tf.assign_add(tf.train.get_or_create_global_step(), 1)
    proto = tf.ConfigProto(
        intra_op_parallelism_threads=config.threads, inter_op_parallelism_threads=config.threads
    )
    session = tf.Session(config=prepared(proto, ranks))
    session.run(tf.constant(0))
    held = _status("VmRSS")
    session.run(tf.global_variables_initializer())
    name = f"TF {VERSION}" + (f", {ranks.size} devices" if ranks.size > 1 else "")
    return lambda: session.run([shown for shown, _ in towers] + [count]), name, held


def _tower(config, ranks, rank, embeddings_ND, labels_N):
    """(what a step shows, the op that moves the centres) of one rank."""
    from losses.class_centres import HeadConfig, HeadInputs, HeadParts, class_centres_loss
    from runtime.distributed.collectives import Collectives
    from runtime.tf1 import tf
    from training.graph.optimizer import apply_gradients

    collectives = Collectives(rank, ranks.size)
    head = class_centres_loss(
        HeadInputs(embeddings_ND, labels_N),
        HeadConfig(config.identities[0], sample_rate=config.sample_rate[0]),
        HeadParts(collectives.maximum, collectives.sum, rank, ranks.size),
    )
    slope_ND, gradient = tf.gradients(head.loss, [embeddings_ND, head.centres])
    move = apply_gradients([(gradient, head.centres)], RATE, momentum=MOMENTUM, weight_decay=DECAY)
    return [head.loss, head.accuracy, tf.reduce_sum(collectives.sum(slope_ND))], move


def _peer(config):
    """The same of Partial FC as published: a sampled softmax whose gradient is dense in the
    [K, D] weights."""
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

    return step, "PyTorch", held


if __name__ == "__main__":
    run(main)
