"""A loss or gradient that is not finite: which tensor, at which rate, and for which images.

The step itself omits such an update (training/graph/tower.py), so that the weights are still
those of the step before when the run ends or continues.
"""

import logging
import math
import os
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional

import numpy as np

from checkpoint.format import PREFIX, steps_in
from data.pipeline.batches import TrainingBatches, open_stream
from data.pipeline.record_order import shard_and_number
from runtime.distributed.ranks import Ranks
from runtime.files import write_npz
from runtime.session import session_config
from runtime.tf1 import tf
from training.config import TrainConfig
from training.hooks.base import Hook
from training.write_errors import ERRORS, reason

SAVED = 10  # batches of a run that are saved; more would show nothing new


class NonFinitePolicy(NamedTuple):
    """What to do at a step that is not finite, and where to report it."""

    on_nan: str  # stop or skip
    max_skipped: int  # consecutive steps that skip tolerates
    loss_scaling: bool  # overflows of scaled gradients are expected
    log_directory: str  # of the batches that are saved
    ckpt_directory: str  # of the checkpoints to resume from
    suffix: str = ""  # of the files of this process, where several write

    @classmethod
    def of(cls, config: TrainConfig, ranks: Ranks) -> "NonFinitePolicy":
        """The policy of a config."""
        return cls(
            config.on_nan,
            config.max_skipped,
            loss_scaling=config.precision == "fp16",
            log_directory=config.directory("logs"),
            ckpt_directory=config.directory("ckpt"),
            suffix=f"_host_{ranks.host}" if ranks.hosts else "",
        )


class NonFiniteGuard(Hook):
    """Checks that each step is finite. --on_nan stop ends the run at one that is not; skip
    continues, and ends it after too many in a row. An overflow of fp16's scaled gradients is
    neither: the loss scale is halved, unless it is at its lowest.

    batch_of: step -> {name: array} of its batch, read again from the data. has_names: whether a
    step has the scalar nonfinite_names."""

    def __init__(
        self,
        policy: NonFinitePolicy,
        batch_of: Callable[[int], Dict[str, np.ndarray]],
        has_names: bool = True,
    ) -> None:
        self.policy, self.batch_of = policy, batch_of
        self.names = ("nonfinite_names",) if has_names else ()
        self.in_a_row, self.skipped, self.saved = 0, 0, 0

    def wants(self, step: int) -> Iterable[str]:
        return ("inference_loss", "learning_rate") + self.names

    def after(self, step: int, values: Dict[str, Any], seconds: float) -> None:
        names = _names(values)
        if not names:
            self.in_a_row = 0
            return
        self.in_a_row, self.skipped = self.in_a_row + 1, self.skipped + 1
        message = f"step {step}: {_listed(names)} at learning rate {values['learning_rate']:.3g}"
        too_many = self.in_a_row > self.policy.max_skipped
        if self.policy.loss_scaling and math.isfinite(values["inference_loss"]) and not too_many:
            logging.info("%s in fp16; the step is skipped and its scale halved.", message)
            return
        message += self._save_batch(step, values)
        if self.policy.on_nan == "stop" or too_many:
            raise ValueError(f"{message}; {self._advice(too_many)}")
        logging.warning("%s; the step is skipped (%d so far).", message, self.skipped)

    def end(self, step: int) -> None:
        if self.skipped:
            logging.warning("%d steps were skipped as they were not finite.", self.skipped)

    def _save_batch(self, step: int, values: Dict[str, Any]) -> str:
        """Saves the batch; the part of the message that names the file."""
        if self.saved == SAVED:
            return ""
        self.saved += 1
        name = f"nonfinite_step_{step}{self.policy.suffix}.npz"
        path = os.path.join(self.policy.log_directory, name)
        scalars = {name: values[name] for name in self.wants(step)}
        try:
            write_npz(path, {"step": step, **scalars, **self.batch_of(step)})
        except ERRORS as error:
            return f" (its batch could not be saved: {reason(error)})"
        return f", its batch is in {path}"

    def _advice(self, too_many: bool) -> str:
        steps = steps_in(self.policy.ckpt_directory)
        if too_many:
            advice = f"that is {self.in_a_row} in a row, more than --max_skipped, so "
        else:
            advice = "skip such steps with --on_nan skip, or "
        advice += "start again with a lower --lr or a longer --warmup; the last good checkpoint is "
        if not steps:
            return advice + "none, as nothing was saved yet."
        last = os.path.join(self.policy.ckpt_directory, PREFIX.format(steps[-1]))
        return advice + f"{last}, from which --resume continues."


def _listed(names: List[str]) -> str:
    """`loss and 12 other tensors are not finite (first: embeddings)`."""
    if len(names) == 1:
        return f"{names[0]} is not finite"
    others = "another tensor" if len(names) == 2 else f"{len(names) - 1} other tensors"
    return f"{names[0]} and {others} are not finite (first: {names[1]})"


def _names(values: Dict[str, Any]) -> List[str]:
    """The tensors of a step that are not finite; on a device without strings, of the loss alone."""
    if "nonfinite_names" in values:
        return values["nonfinite_names"].decode().splitlines()
    return [] if math.isfinite(values["inference_loss"]) else ["loss"]


def batch_again(batches: TrainingBatches, step: int, parts: int) -> Dict[str, np.ndarray]:
    """{images, labels, records} of this process's share of a step's batch. parts: the elements of
    the stream that the share consists of."""
    share = batches.batch_size * parts
    first = (step - 1) * share
    graph_seed = batches.graph_seed  # of the run: Dataset.shuffle draws from it as well
    batch = read_batch(
        lambda: tf.data.make_initializable_iterator(batches.dataset(first)), parts, graph_seed
    )
    batch["records"] = record_names(batches, first, share, graph_seed)
    return batch


def read_batch(
    make_iterator: Callable[[], Any], parts: int, graph_seed: Optional[int] = None
) -> Dict[str, np.ndarray]:
    """{images, labels} of the first `parts` elements of an iterator, which is made in another
    graph: the run's own is at the next batch already."""
    with tf.Graph().as_default():
        tf.set_random_seed(graph_seed)
        iterator = make_iterator()
        element = iterator.get_next()[:2]
        with tf.Session(config=session_config("cpu")) as session:
            session.run(iterator.initializer)
            images, labels = zip(*[session.run(element) for _ in range(parts)])
    return {"images": np.concatenate(images), "labels": np.concatenate(labels)}


def record_names(
    batches: TrainingBatches, first: int, count: int, graph_seed: Optional[int] = None
) -> np.ndarray:
    """`shard: record n` of each of `count` images of the stream from image `first` on."""
    with tf.Graph().as_default():
        tf.set_random_seed(graph_seed)
        stream = open_stream(batches.stream)
        records = stream.records(first).map(lambda record, _: record).batch(count)
        following = tf.data.make_initializable_iterator(records)
        element = following.get_next()
        with tf.Session(config=session_config("cpu")) as session:
            session.run(following.initializer)
            found = [shard_and_number(int(record)) for record in session.run(element)]
    return np.array([f"{stream.names[shard]}: record {number}" for shard, number in found])
