"""Builds the training and evaluation graphs for an Ascend NPU and lists what may not compile.

    PYTHONPATH=tests/npu_double python -m tools.npu_lint          # on TensorFlow 1.15, no NPU
    python -m tools.npu_lint --net_depth 100 --loss arcface --cards 8 --sample_rate 0.1

It requires npu_bridge: that of the adapter or its test double. Faults, with exit code 1: dynamic
shapes, float64 and text on the device; operations without evidence (runtime/npu/supported_ops.py);
references of variables in operations that take none; shapes in evaluation that training does not
have. An option that this version of CANN or this card does not have ends it with exit code 2.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

from losses.choices import LOSS_NAMES
from losses.class_slices import slice_of
from losses.partial_fc import Part, drawn_groups
from runtime.cli import run
from runtime.device import strategy
from runtime.distributed.ranks import Ranks
from runtime.flags import build, flag, parse_flags
from runtime.npu import adapter, compiled_ops
from runtime.npu.cards import AUTO, CARDS
from runtime.npu.options import NpuFlags, chosen, log_target
from runtime.tf1 import tf
from training.config import MultiDeviceConfig
from training.graph.schedule import RateSettings
from training.graph.settings import step_settings
from training.graph.step import build_step

FAULTS = 1  # the exit code
# With everything that a graph may have: warmup, several changes, a frozen backbone.
RATES = RateSettings("piecewise", 0.1, 100, 5, [10, 20, 30], (1.0, 0.5, 0.3, 0.1))


@dataclasses.dataclass(frozen=True)
class LintConfig:
    """Every combination of the flags is built; the defaults cover what compiles differently."""

    lineage: str = flag("insightface_tf", "network lineage")
    net_depth: Tuple[int, ...] = flag((50, 100), "depths")
    block: Tuple[str, ...] = flag(("ir", "se"), "residual units")
    loss: Tuple[str, ...] = flag(("arcface",), "losses", choices=LOSS_NAMES)
    sample_rate: Tuple[float, ...] = flag(
        (1.0,), "share of identities per step", above=0.0, high=1.0
    )
    cards: Tuple[int, ...] = flag((1,), "number of cards", low=1)
    optimizer: Tuple[str, ...] = flag(("momentum",), "optimizers")
    precision_mode: str = flag("allow_mix_precision", "precision mode of the device")
    cann: str = flag(AUTO, "version of CANN, 5.0 to 9; auto: of the toolkit in ASCEND_HOME_PATH")
    npu_card: str = flag(
        AUTO, "kind of card; auto: by its PCI device id, else 910A;", choices=(AUTO,) + tuple(CARDS)
    )
    npu_option: Tuple[str, ...] = flag((), "options of NpuOptimizer as KEY=VALUE")
    image_size: int = flag(32, "height and width; does not change the operations", low=16)
    width: float = flag(0.125, "factor on channels; does not change the operations", above=0.0)
    batch_size: int = flag(4, "images per card", low=2)
    identities: int = flag(512, "identities, over all cards", low=2)
    embedding_size: int = flag(16, "embedding dimension", low=2)


def main(argv: Optional[Sequence[str]] = None) -> int:
    config = parse_flags(LintConfig, argv, __doc__.splitlines()[0])
    check_options(config)
    adapter.adapter()
    logging.getLogger().setLevel(logging.WARNING)
    found = 0
    for case in cases(config):
        kinds, faults = lint(config, **case)
        settings = ", ".join(f"{name} {value}" for name, value in case.items())
        size = f"{sum(kinds.values())} operations of {len(kinds)} kinds"
        print(f"{settings}: {size}, {len(faults)} faults", flush=True)
        for fault in faults:
            print(f"  {fault}")
        found += len(faults)
    return FAULTS if found else 0


def check_options(config: LintConfig) -> None:
    """Refuses options that the version of CANN or the card does not have, and logs which of them
    may have no effect."""
    v2 = any(word.startswith("precision_mode_v2=") for word in config.npu_option)
    flags = NpuFlags(
        cann=config.cann,
        npu_card=config.npu_card,
        npu_option=config.npu_option,
        precision_mode=None if v2 else config.precision_mode,
    )
    chosen(flags)
    log_target(flags)


def cases(config: LintConfig) -> Iterator[Dict[str, Any]]:
    """Every combination of the flags that have several values."""
    names = ("net_depth", "block", "loss", "sample_rate", "cards", "optimizer")
    nets = (config.net_depth, config.block, config.loss, config.sample_rate)
    for values in itertools.product(*nets, config.cards, config.optimizer):
        yield dict(zip(names, values))


def lint(config: LintConfig, cards: int = 1, **case: Any) -> Tuple[Dict[str, int], List[str]]:
    """One case -> ({kind of operation: count}, [fault])."""
    case.update(
        lineage=config.lineage,
        precision_mode=config.precision_mode,
        image_size=(config.image_size,) * 2,
        width=config.width,
        batch_size=config.batch_size * cards,
        embedding_size=config.embedding_size,
        dropout=0.4,
        device="npu",
        tfrecords_file_path="",
    )
    ranks = Ranks(host=cards - 1, kind="NPU", cards=cards)
    train_config = strategy("npu").adapt(build(MultiDeviceConfig, case), ranks.size)
    with _environment(ranks), tf.Graph().as_default():
        strategy("npu").build_graph()
        settings = step_settings(train_config, config.identities, RATES, frozen_steps=3)
        step = build_step(settings, [_batch(train_config, config.identities, ranks)], ranks)
        sets = {
            "training": [step.train] + list(step.scalars.values()),
            "evaluation": [step.plain_BD, step.mirrored_BD],
            "the start": [step.replicate]
            + ([] if step.fingerprints is None else [step.fingerprints]),
        }
        return _faults_of({name: compiled_ops.compiled(fetches) for name, fetches in sets.items()})


def _faults_of(sets: Dict[str, List[Any]]) -> Tuple[Dict[str, int], List[str]]:
    kinds: Dict[str, int] = {}
    faults: List[str] = []
    for name, ops in sets.items():
        faults += compiled_ops.faults(ops, name)
        for op in ops:
            kinds[compiled_ops.kind_of(op)] = kinds.get(compiled_ops.kind_of(op), 0) + 1
    second = compiled_ops.convolved(sets["evaluation"]) - compiled_ops.convolved(sets["training"])
    faults += [f"evaluation: convolves {shape}, but training does not" for shape in sorted(second)]
    return kinds, faults


def _batch(config, identities, ranks):
    """A card's batch of the input pipeline, from an initializable iterator."""
    images = config.batch_size // ranks.size
    parts = [tf.zeros((images,) + tuple(config.image_size) + (3,), tf.uint8)]
    parts += [tf.zeros([images], tf.int64)]
    groups = drawn_groups(
        identities, config.sample_rate, config.batch_size, ranks.size, Part(ranks.host, ranks.size)
    )
    drawn = sum(group.draws for group in groups)
    if drawn < slice_of(identities, ranks.host, ranks.size)[1]:
        parts += [tf.zeros([drawn], tf.int32), tf.zeros([config.batch_size], tf.int32)]
    dataset = tf.data.Dataset.from_tensors(tuple(parts)).repeat()
    return tf.data.make_initializable_iterator(dataset).get_next()


@contextlib.contextmanager
def _environment(ranks):
    """The adapter reads the size of the run from the environment while the graph is built."""
    values = {"RANK_ID": str(ranks.host), "RANK_SIZE": str(ranks.size), "JOB_ID": "10087"}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    run(main)
