"""What a training run is, and is not, on an Ascend NPU.

There a fetch set is a compiled graph of its own, with memory of its own: a step always fetches the
same, and validation feeds what the step was compiled for.
"""

import dataclasses
import logging
import os

from data.pipeline.batches import training_labels
from losses.class_slices import local_labels, slice_of
from losses.partial_fc import draw, drawn_groups, fitting
from runtime.npu.options import TYPED
from runtime.tf1 import tf
from training.hooks.base import Hook
from training.hooks.profiler import npu_options

# Flags that a graph for the device cannot follow, the values that it can, and why.
_ONLY = {
    "precision": (("fp32", "fp16"), "the Ascend 910 has no bfloat16"),
    "mix_compile_mode": ((None, False), "it cannot take the batch norm's last output"),
    "recompute": ((False,), "the device's compiler decides itself what it keeps"),
    "xla": ((False,), "the device has a compiler of its own"),
    "ema": ((0.0,), "the averages would be a second set of variables on the device"),
    "accumulate": ((1,), "each part would be compiled as a second graph beside the step's"),
    "on_error": (("stop",), "the names of damaged records are text, which the device cannot hold"),
}


def adapted(config, ranks):
    """The config as it holds on `--device npu`; on others as it is, but said where a flag is of no
    use there."""
    if config.device != "npu":
        said = [name for name in TYPED + ("npu_option",) if getattr(config, name)]
        if said:
            logging.info("--%s is for --device npu, and does nothing here.", ", --".join(said))
        return config
    for name, (allowed, why) in _ONLY.items():
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(
                f"--{name} {value} cannot be used with --device npu: {why}; pass --{name} "
                f"{' or '.join(str(one) for one in allowed if one is not None)}."
            )
    share = _share(config, ranks)
    logging.info(
        "--device npu: validation runs %d images and their mirrors at a time on each card, the "
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


def _share(config, ranks):
    """The images of a card in a step: an even number, so that half of them and their mirrors are as
    many."""
    share, rest = divmod(config.batch_size, ranks.size)
    if rest or share % 2:
        raise ValueError(
            f"--batch_size {config.batch_size} is that of all {ranks.size} cards, and each card "
            f"must have an even number of them; pass a multiple of {2 * ranks.size}."
        )
    return share


def check_loop(config, plan):
    """Ends a run whose steps cannot be made several at a time, as --iterations_per_loop says."""
    turns = config.iterations_per_loop or 1
    for name, steps in (
        ("epoch", plan.total_steps),
        ("ckpt_interval", plan.ckpt_steps),
        ("validate_interval", plan.validate_steps),
        ("summary_interval", plan.summary_steps),
        ("show_info_interval", plan.info_steps),
    ):
        if steps % turns:
            raise ValueError(
                f"--{name} {getattr(config, name)} is {steps} steps, and --iterations_per_loop "
                f"{turns} makes {turns} at a time; pass a multiple of that."
            )


class FetchAllScalars(Hook):
    """Fetches every scalar after every step: another fetch set would be another compiled graph."""

    def __init__(self, step):
        self.names = tuple(step.scalars)

    def wants(self, step):
        return self.names


def with_draws(dataset, config, plan, first, ranks):
    """Batches (images, labels) -> with the classes that the step reads, (drawn_R, places_N) int32
    of this card's slice: drawing them takes operations that the device has not, so the host does it
    beside the decoding. The slice's draw depends on the labels of all cards; those of the others
    are read from the records again.
    first: the steps before this dataset's first batch."""
    split = config.draw_groups or ranks.size
    said = (plan.identities, config.sample_rate, config.batch_size, split)
    every, groups = drawn_groups(*said), drawn_groups(*said, ranks.host, ranks.size)
    start, count = slice_of(plan.identities, ranks.host, ranks.size)
    everyone = [_labels(config, first, ranks, rank) for rank in range(ranks.size)]

    def draw_too(number, batch, labels):
        fitted_N = fitting(tf.concat(labels, axis=0), every)
        drawn = draw(local_labels(fitted_N, start, count), groups, config.seed, first + number)
        own_n = tf.split(fitted_N, ranks.size)[ranks.host]
        return (batch[0], own_n) + tuple(tf.cast(part, tf.int32) for part in drawn)

    if ranks.size == 1:
        return dataset.enumerate().map(lambda number, batch: draw_too(number, batch, [batch[1]]))
    zipped = tf.data.Dataset.zip((dataset, tf.data.Dataset.zip(tuple(everyone))))
    return zipped.enumerate().map(lambda number, both: draw_too(number, both[0], list(both[1])))


def _labels(config, first, ranks, rank):
    """The labels of another card's batches, in its order: int64 [n]."""
    share = config.batch_size // ranks.size
    return training_labels(
        config.tfrecords_file_path,
        share,
        config.seed,
        start_image=first * share,
        buffer_size=config.buffer_size,
        host=rank,
        hosts=ranks.size,
    )
