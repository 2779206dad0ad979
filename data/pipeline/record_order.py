"""Which record of which shard comes when: the order of an epoch, a host's share, a place to start.

S shards in the data set, M of them in this host's share, in G groups. Records stay bytes here.
"""

from typing import List, Tuple

import numpy as np

from data.formats.manifest import Manifest
from data.formats.tfrecord import frames_after_damage
from data.pipeline.stateless_random import hashed, shuffle_seed
from runtime.tf1 import tf

READ_BYTES = 1 << 20  # of a shard in one read
RECORD_BITS = 40  # a record is named by shard << 40 | its number in the shard
FOREVER = 1 << 62


class RecordStream:
    """The endless order of a data set's records. Positions count this host's images."""

    def __init__(
        self,
        names: List[str],
        manifest: Manifest,
        seed: int,
        buffer_size: int,
        host: int = 0,
        hosts: int = 1,
    ) -> None:
        self.names, self.counts = names, [count for _, count in manifest.shards]
        self.seed, self.buffer_size = int(seed), buffer_size
        total = manifest.images
        self.low, self.high = total * host // hosts, total * (host + 1) // hosts
        self.images = self.high - self.low  # of this host in each epoch
        if total < hosts:
            raise ValueError(
                f"{total} images are too few for {hosts} hosts; one of them would have none."
            )

    def records(self, first: int) -> tf.data.Dataset:
        """Dataset of (record name, Example bytes), both scalars, from position `first` on."""
        epoch, skip = divmod(first, self.images)
        numbers = tf.data.Dataset.range(epoch, FOREVER)
        return numbers.flat_map(
            lambda e: self.epoch(e, tf.where(tf.equal(e, epoch), _int64(skip), _int64(0)))
        )

    def epoch(self, epoch: tf.Tensor, skip: tf.Tensor) -> tf.data.Dataset:
        """One epoch's records but the first `skip`.

        Shards in an order hashed from (seed, epoch); this host's stretch of it; as many neighbours
        as fill the shuffle buffer form a group and are shuffled among themselves. So whole groups
        can be skipped by their counts, and a group depends on nothing before it."""
        shards = len(self.counts)
        order_S = tf.argsort(hashed(self.seed, 2, epoch, tf.range(shards, dtype=tf.int64)))
        counts_S = tf.gather(tf.constant(self.counts, tf.int64), order_S)
        before_S = tf.cumsum(counts_S, exclusive=True)
        start_S = tf.clip_by_value(self.low - before_S, 0, counts_S)
        length_S = tf.clip_by_value(self.high - before_S, 0, counts_S) - start_S
        stop_S = tf.cumsum(length_S)  # of this host's records, up to and with each shard
        group_S = self._groups(length_S, stop_S)
        first_group = tf.gather(group_S, _position(stop_S, skip, "right"))
        order_S = tf.cast(order_S, tf.int64)

        def piece(place):
            return self.shard(*(tf.gather(x, place) for x in (order_S, start_S, length_S)))

        def group(g):
            first, last = _position(group_S, g, "left"), _position(group_S, g, "right")
            records = tf.data.Dataset.range(first, last).flat_map(piece)
            skipped = tf.maximum(skip - tf.gather(stop_S - length_S, first), 0)
            seed = shuffle_seed(self.seed, 3, epoch, g)
            return records.shuffle(self.buffer_size, seed=seed).skip(skipped)

        return tf.data.Dataset.range(first_group, group_S[-1] + 1).flat_map(group)

    def _groups(self, length_S, stop_S):
        """int64 [S], not decreasing: the group of each shard, numbered from 0; -1 before the first.

        Of fixed shape: masks and segments of unknown length were once seen to disagree in length.
        """
        full_S = (stop_S - length_S) // self.buffer_size  # not decreasing
        mine_S = tf.cast(length_S > 0, tf.int64)
        earlier_S = tf.cumsum(mine_S, exclusive=True)
        # A shard opens a group where none of this host's before it has the same quotient.
        opens_S = tf.equal(earlier_S, tf.gather(earlier_S, tf.searchsorted(full_S, full_S)))
        return tf.cumsum(mine_S * tf.cast(opens_S, tf.int64)) - 1

    def shard(self, shard: tf.Tensor, start: tf.Tensor, length: tf.Tensor) -> tf.data.Dataset:
        """Records start ... start + length of one shard.

        TensorFlow leaves a file at its first bad checksum. What follows is then read by Python,
        from the next valid frame on; a damaged record comes as an empty one, so that every later
        record keeps its position."""
        name = tf.gather(tf.constant(self.names), shard)
        readable = tf.data.Dataset.from_tensors(name).map(_opened)
        readable = readable.apply(tf.data.experimental.ignore_errors())
        examples = readable.flat_map(lambda path: tf.data.TFRecordDataset(path, None, READ_BYTES))
        examples = examples.apply(tf.data.experimental.ignore_errors())
        # Only reached where TensorFlow found fewer records than the manifest counts.
        rest = tf.data.Dataset.from_tensors(name).flat_map(_rest_of_damaged_shard)
        lost = tf.data.Dataset.from_tensors(tf.constant(b"")).repeat()
        numbered = examples.concatenate(rest).concatenate(lost)
        return numbered.enumerate(start=shard * (1 << RECORD_BITS)).skip(start).take(length)


def _rest_of_damaged_shard(path):
    """Dataset of the Examples from the first damaged record on, which itself is empty bytes."""

    def read(path):
        try:
            with tf.io.gfile.GFile(path.decode(), "rb") as stream:
                return np.array(frames_after_damage(stream.read()), dtype=object)
        except (tf.errors.OpError, OSError):
            return np.array([], dtype=object)

    examples = tf.numpy_function(read, [path], tf.string)
    examples.set_shape([None])
    return tf.data.Dataset.from_tensor_slices(examples)


def _opened(path):
    """The path, or an error if its first record cannot be read. A file that cannot be opened must
    never reach ignore_errors: TensorFlow would try to open it for ever."""
    first = tf.data.experimental.get_single_element(tf.data.TFRecordDataset(path).take(1))
    with tf.control_dependencies([first]):
        return tf.identity(path)


def shard_and_number(record: int) -> Tuple[int, int]:
    """A record's name (Python int) -> the index of its shard, its number in it."""
    return record >> RECORD_BITS, record & ((1 << RECORD_BITS) - 1)


def _position(sorted_S, value, side):
    """How many of the sorted int64 [S] are below the scalar; "right": below or equal. int64."""
    return tf.searchsorted(sorted_S, value[None], side=side, out_type=tf.int64)[0]


def _int64(value):
    return tf.constant(value, tf.int64)
