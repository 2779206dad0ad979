"""A loss or gradient that is no number: which tensor, at which rate, and the images that it was.

The step itself omits such an update (training/graph/tower.py), so that the weights are still
those of the step before when the run ends, or goes on.
"""

import logging
import math
import os

import numpy as np

from checkpoint.format import PREFIX, steps_in
from data.formats.manifest import LocalFiles, read_manifest
from data.pipeline.record_order import RecordStream, shard_and_number
from runtime.distributed.ranks import SINGLE
from runtime.session import session_config
from runtime.tf1 import tf
from training.hooks.base import Hook

SAVED = 10  # batches of a run that are saved; the next would tell no more


class NonFiniteGuard(Hook):
    """Watches each step for what is no number. --on_nan stop ends the run there; skip goes on, and
    ends it after too many in a row. An overflow of fp16's scaled gradients is none of either: the
    loss scale answers it, unless that has nothing left to give.

    batch_of: step -> {name: array} of its batch, made again from the data."""

    def __init__(self, config, batch_of, step, ranks=SINGLE):
        self.config, self.batch_of = config, batch_of
        self.where = f"_host_{ranks.host}" if ranks.hosts else ""
        self.named = ("nonfinite_names",) if "nonfinite_names" in step.scalars else ()
        self.scaled = config.precision == "fp16"
        self.in_a_row, self.skipped, self.saved = 0, 0, 0

    def wants(self, step):
        return ("inference_loss", "learning_rate") + self.named

    def after(self, step, values, seconds):
        names = _names(values)
        if not names:
            self.in_a_row = 0
            return
        self.in_a_row, self.skipped = self.in_a_row + 1, self.skipped + 1
        said = f"step {step}: {_listed(names)} at learning rate {values['learning_rate']:.3g}"
        too_many = self.in_a_row > self.config.max_skipped
        if self.scaled and math.isfinite(values["inference_loss"]) and not too_many:
            logging.info("%s in fp16; the step is left out and its scale halved.", said)
            return
        said += self._kept(step, values)
        if self.config.on_nan == "stop" or too_many:
            raise ValueError(f"{said}; {self._advice(too_many)}")
        logging.warning("%s; the step is left out (%d so far).", said, self.skipped)

    def end(self, step):
        if self.skipped:
            logging.warning("%d steps were left out for what was no number.", self.skipped)

    def _kept(self, step, values):
        """Saves the batch; the part of the sentence that says where."""
        if self.saved == SAVED:
            return ""
        self.saved += 1
        path = os.path.join(self.config.directory("logs"), f"nonfinite_step_{step}{self.where}.npz")
        facts = {name: values[name] for name in self.wants(step)}
        try:
            np.savez(path, step=step, **facts, **self.batch_of(step))
        except (OSError, tf.errors.OpError) as error:
            return f" (its batch could not be saved: {str(error).splitlines()[0]})"
        return f", its batch is in {path}"

    def _advice(self, too_many):
        steps = steps_in(self.config.directory("ckpt"))
        if too_many:
            advice = f"that is {self.in_a_row} in a row, more than --max_skipped, so "
        else:
            advice = "pass over it with --on_nan skip, or "
        advice += "begin again with a lower --lr or a longer --warmup; the last good checkpoint is "
        if not steps:
            return advice + "none, as the run had saved nothing yet."
        last = os.path.join(self.config.directory("ckpt"), PREFIX.format(steps[-1]))
        return advice + f"{last}, and --resume goes on from it."


def _listed(names):
    """`the loss and 12 more, first the embeddings, are no numbers`."""
    if len(names) == 1:
        return f"{names[0]} is no number"
    return f"{names[0]} and {len(names) - 1} more, first {names[1]}, are no numbers"


def _names(values):
    """What of a step is no number; on a device without text the loss speaks for all."""
    if "nonfinite_names" in values:
        return values["nonfinite_names"].decode().splitlines()
    return [] if math.isfinite(values["inference_loss"]) else ["the loss"]


def batch_again(config, ranks, step, make_iterator):
    """{images, labels, records} of this process's share of a step's batch. make_iterator: from the
    number of steps before, as training makes it."""
    batch = read_batch(lambda: make_iterator(step - 1), config.accumulate)
    share = config.batch_size // ranks.host_count
    batch["records"] = record_names(
        config.tfrecords_file_path,
        config.seed,
        config.buffer_size,
        (step - 1) * share,
        share,
        ranks.host,
        ranks.host_count,
    )
    return batch


def read_batch(make_iterator, parts):
    """{images, labels} of the first `parts` elements of an iterator, which is made in another
    graph: the run's own has moved on to the next batch."""
    with tf.Graph().as_default():
        iterator = make_iterator()
        element = iterator.get_next()[:2]
        with tf.Session(config=session_config("cpu")) as session:
            session.run(iterator.initializer)
            images, labels = zip(*[session.run(element) for _ in range(parts)])
    return {"images": np.concatenate(images), "labels": np.concatenate(labels)}


def record_names(path, seed, buffer_size, first, count, host=0, hosts=1):
    """`shard: record n` of each of `count` images of the stream from image `first` on."""
    files = tf.io.gfile if "://" in path else LocalFiles
    manifest = read_manifest(path, files)
    directory = path if files.isdir(path) else os.path.dirname(path)
    names = [os.path.join(directory, name) for name, _ in manifest.shards]
    with tf.Graph().as_default():
        stream = RecordStream(names, manifest, seed, buffer_size, host, hosts)
        records = stream.records(first).map(lambda record, _: record).batch(count)
        following = tf.data.make_initializable_iterator(records)
        element = following.get_next()
        with tf.Session(config=session_config("cpu")) as session:
            session.run(following.initializer)
            found = [shard_and_number(int(record)) for record in session.run(element)]
    return np.array([f"{names[shard]}: record {number}" for shard, number in found])
