"""What differs in a training run on an Ascend NPU.

There every set of fetches is a compiled graph with memory of its own: a step always fetches the
same scalars, and validation feeds the shape that the step was compiled for.
"""

import dataclasses
import logging
import os
from typing import Iterable, List, Tuple

from data.pipeline.batches import training_labels
from losses.class_slices import local_labels, slice_of
from losses.partial_fc import draw, drawn_groups, fitting
from runtime.distributed.ranks import Ranks
from runtime.npu.options import TYPED
from runtime.tf1 import tf
from training.config import TrainConfig
from training.graph.step import StepOps
from training.hooks.base import Hook
from training.hooks.profiler import npu_options
from training.plan import Plan

# Flags that a graph for the device cannot follow, the values that it can, and why.
_ONLY = {
    "precision": (
        ("fp32", "fp16"),
        "variables are float32 there, and --precision_mode allow_mix_precision_bf16 computes in "
        "bfloat16 on 910B and 910C",
    ),
    "mix_compile_mode": ((None, False), "it cannot take the batch norm's last output"),
    "recompute": ((False,), "the device's compiler decides itself what it keeps"),
    "xla": ((False,), "the device has a compiler of its own"),
    "ema": ((0.0,), "the averages would be a second set of variables on the device"),
    "accumulate": ((1,), "each part would be compiled as a second graph beside the step's"),
    "on_error": (("stop",), "the names of damaged records are text, which the device cannot hold"),
}


def adapted(config: TrainConfig, ranks: Ranks) -> TrainConfig:
    """The config that holds on --device npu; for other devices the same config, with a log line
    about flags that have no effect there."""
    if config.device != "npu":
        given = [name for name in TYPED + ("npu_option",) if getattr(config, name)]
        if given:
            logging.info("--%s is for --device npu and has no effect here.", ", --".join(given))
        return config
    for name, (allowed, why) in _ONLY.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(
                f"--{name} {value} cannot be used with --device npu: {why}; pass --{name} "
                f"{' or '.join(str(choice) for choice in allowed if choice is not None)}."
            )
    share = _share(config, ranks)
    logging.info(
        "--device npu: validation runs %d images and their mirrors per step on each card, the "
        "shape that training compiles; a checkpoint's --precision is that of its variables, fp32",
        share // 2,
    )
    directory = os.path.join(config.output_path, "profile")
    return dataclasses.replace(
        config,
        eval_batch_size=share // 2,
        precision="fp32",
        **npu_options(config.profile, directory),
    )


def _share(config: TrainConfig, ranks: Ranks) -> int:
    """The images of a card in a step: an even number, so that half of them with their mirrors have
    the same shape."""
    share, rest = divmod(config.batch_size, ranks.size)
    if rest or share % 2:
        raise ValueError(
            f"--batch_size {config.batch_size} is divided among {ranks.size} cards, and each card "
            f"must have an even number of images; pass a multiple of {2 * ranks.size}."
        )
    return share


def check_loop(config: TrainConfig, plan: Plan) -> None:
    """Refuses intervals that --iterations_per_loop does not divide."""
    steps_per_call = config.iterations_per_loop or 1
    for name, steps in (
        ("epoch", plan.total_steps),
        ("ckpt_interval", plan.ckpt_steps),
        ("validate_interval", plan.validate_steps),
        ("summary_interval", plan.summary_steps),
        ("show_info_interval", plan.info_steps),
    ):
        if steps % steps_per_call:
            raise ValueError(
                f"--{name} {getattr(config, name)} is {steps} steps, but --iterations_per_loop "
                f"makes {steps_per_call} per call; pass a multiple of {steps_per_call}."
            )


class FetchAllScalars(Hook):
    """Fetches every scalar in every step: another set of fetches compiles another graph."""

    def __init__(self, ops: StepOps) -> None:
        self.names = tuple(ops.scalars)

    def wants(self, step: int) -> Iterable[str]:
        return self.names


def with_draws(
    dataset: tf.data.Dataset, config: TrainConfig, identities: int, step: int, ranks: Ranks
) -> tf.data.Dataset:
    """Batches (images, labels) -> with the classes that the step reads, (drawn_R, places_N) int32
    of this card's slice: sampling needs operations that the device lacks, so the host does it in
    the input pipeline. The sample of a slice depends on the labels of all cards; those of the
    others are read from the records again.
    step: the steps before this dataset's first batch."""
    split = config.cluster.draw_groups or ranks.size
    sampling = (identities, config.sample_rate, config.batch_size, split)
    every, groups = drawn_groups(*sampling), drawn_groups(*sampling, ranks.host, ranks.size)
    start, count = slice_of(identities, ranks.host, ranks.size)
    everyone = [_labels(config, step, ranks, rank) for rank in range(ranks.size)]

    def add_draw(index: tf.Tensor, batch: Tuple, labels: List[tf.Tensor]) -> Tuple:
        fitted_N = fitting(tf.concat(labels, axis=0), every)
        drawn = draw(local_labels(fitted_N, start, count), groups, config.seed, step + index)
        own_n = tf.split(fitted_N, ranks.size)[ranks.host]
        return (batch[0], own_n) + tuple(tf.cast(part, tf.int32) for part in drawn)

    if ranks.size == 1:
        return dataset.enumerate().map(lambda index, batch: add_draw(index, batch, [batch[1]]))
    zipped = tf.data.Dataset.zip((dataset, tf.data.Dataset.zip(tuple(everyone))))
    return zipped.enumerate().map(lambda index, both: add_draw(index, both[0], list(both[1])))


def _labels(config: TrainConfig, step: int, ranks: Ranks, rank: int) -> tf.data.Dataset:
    """The labels of another card's batches, in its order: int64 [n]."""
    share = config.batch_size // ranks.size
    return training_labels(
        config.tfrecords_file_path,
        share,
        config.seed,
        start_image=step * share,
        buffer_size=config.buffer_size,
        host=rank,
        hosts=ranks.size,
    )
